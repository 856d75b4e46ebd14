"""Each row of the table of commands is sent, and answered as it says; nobody else notices."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from livefeed.cursor import client_epoch
from livefeed.limits import CONNECTION_FEEDS_MAX, INBOUND_FRAME_BYTES_MAX
from livefeed.protocol import FEEDS_MAX
from tests.bystander import assert_same_rows, attacker, bystander, table
from tests.servers import Stack

HIDDEN = '{"type":"visibility","state":"hidden"}'
Messages = Sequence[str]


def subscribe(*feeds: Any, **fields: Any) -> str:
    """Return the frame with these feeds."""
    return json.dumps({"type": "subscribe", "feeds": feeds, **fields})


def at(positions: Any, epoch: str = "{epoch}") -> str:
    """Return a frame whose cursor has these positions, or this text for them."""
    text = positions if isinstance(positions, str) else json.dumps(positions)
    cursor = f'{{"epoch":"{epoch}","positions":{text}}}'
    return f'{{"type":"subscribe","feeds":["home"],"cursor":{cursor}}}'


def names(count: int, prefix: str = "feed") -> list[str]:
    """Return names of feeds."""
    return [f"{prefix}-{number}" for number in range(count)]


# Each attack's connections: what is sent on each, in order. `{epoch}` is the attacker's own.
COMMANDS: dict[str, list[Messages]] = {
    "no JSON": [["subscribe home"], [""], ["{"], ["'"]],
    "something after the frame": [[HIDDEN + " x"], [HIDDEN + HIDDEN]],
    "an array at the top": [[f"[{HIDDEN}]"]],
    "a number, `null`, a text or `true` at the top": [["7"], ["null"], ['"subscribe"'], ["true"]],
    "a `type` that is none": [['{"type":"publish"}'], ['{"type":7}'], ["{}"], ['{"type":null}']],
    "a missing field": [['{"type":"subscribe"}'], ['{"type":"seen"}'], ['{"type":"refresh"}']],
    "an unknown field": [[subscribe("home", user="bystander")]],
    "a field twice": [['{"type":"subscribe","feeds":["other"],"feeds":["home"]}']],
    "a field of another type, each": [
        [subscribe(7)],
        [subscribe(None)],
        ['{"type":"subscribe","feeds":"home"}'],
        ['{"type":"subscribe","feeds":{"home":1}}'],
        ['{"type":"subscribe","feeds":[]}'],
        [subscribe("home", cursor=[])],
        [subscribe("home", cursor={"epoch": 7, "positions": {}})],
        [subscribe("home", cursor={"epoch": "x", "positions": []})],
        ['{"type":"visibility","state":"odd"}'],
        ['{"type":"refresh","token":7}'],
        ['{"type":"seen","device":7,"cursor":{"epoch":"x","positions":{}}}'],
    ],
    "`NaN` or `Infinity`": [[at('{"me/home":NaN}')], [at('{"me/home":Infinity}')]],
    "a position of 1e400": [[at('{"me/home":1e400}')]],
    "a position of 2^63": [[at({"me/home": 2**63})]],
    "a position of -1": [[at({"me/home": -1})]],
    "a position of 1.5": [[at({"me/home": 1.5})]],
    "a position that is a text": [[at({"me/home": "1"})]],
    "a cursor of another user": [[at({}, client_epoch("e", "bystander"))]],
    "another user's channel in a cursor": [[at({"user:bystander/home": 0})]],
    "a cursor of another epoch": [[at({"me/home": 1}, client_epoch("e", "attacker"))]],
    "a cursor with a forged epoch": [[at({}, "e.0")], [at({}, "")], [at({}, "../../etc")]],
    "a position in the future": [[at({"me/home": 10**6})], [at({"me/home": 2**63 - 1})]],
    "100,000 levels deep": [["[" * 100_000]],
    "8,000 levels deep": [["[" * 8_000], ['{"type":' * 1_500], [at("[" * 8_000)]],
    "100,000 keys": [[json.dumps(dict.fromkeys(names(100_000), 0))]],
    "more channels in a cursor than a connection has": [
        [at({f"all/{name}": 0 for name in names(2 * CONNECTION_FEEDS_MAX + 1)})]
    ],
    "a frame of more than 16 KiB": [[" " * INBOUND_FRAME_BYTES_MAX + HIDDEN]],
    "a frame of more than 32 KiB": [[" " * (2 * INBOUND_FRAME_BYTES_MAX) + HIDDEN]],
    "a lone surrogate": [['{"type":"subscribe","feeds":["\\ud800"]}']],
    "NUL in a name": [[subscribe("home\0")]],
    "NUL outside a text": [["\0" + HIDDEN], [HIDDEN + "\0"]],
    "a byte order mark": [["\ufeff" + HIDDEN]],
    "a feed subscribed twice": [
        [subscribe("home"), subscribe("home")],
        [subscribe("home", "home")],
    ],
    "unsubscribe of what is not followed": [['{"type":"unsubscribe","feeds":["home","a.*"]}']],
    "the 65th feed": [[subscribe(*names(CONNECTION_FEEDS_MAX + 1))]],
    "129 feeds in a frame": [[subscribe(*names(FEEDS_MAX + 1))]],
    "the token again": [['{"type":"refresh","token":"{token}"}'] * 2],
    "another user's token": [['{"type":"refresh","token":"{foreign}"}']],
    "a token of more than 8 KiB": [[json.dumps({"type": "refresh", "token": "x" * 9_000})]],
    "a token that ran out": [['{"type":"refresh","token":"{old}"}']],
    "`seen` of what was never sent": [
        ['{"type":"seen","cursor":{"epoch":"{epoch}","positions":{"me/home":41}}}']
    ],
    "100 catch-ups at once": [
        [
            subscribe(*names(64)),
            json.dumps({"type": "unsubscribe", "feeds": names(64)}),
            subscribe(*names(35, "more"), "home"),
        ]
    ],
    "`__proto__` as a field": [[subscribe("home", __proto__={"feeds": ["secret"]})]],
    "`__proto__` as a channel": [[at({"__proto__": 1})], [at({"constructor": 1})]],
    "commands after too many bad ones": [["x"] * 12 + [subscribe("home")]],
}
SNAPSHOTS = {
    "a page of 0, -1, 10^9 or `NaN` items": [
        "limit=0",
        "limit=-1",
        "limit=1000000000",
        "limit=NaN",
    ],
    "a page after what is no place": ["after=", "after=x", "after=W10=", "after=" + "A" * 4_000],
    "a page of types that there are not, or with a parameter that it has not": [
        "types=",
        "types=likes",
        "offset=50",
        "limit=50&_=1",
    ],
}


async def test_commands(stack: Stack) -> None:
    """Whatever a client sends is answered exactly, and costs nobody but itself."""
    rows = table("Commands")
    assert_same_rows(rows, [*COMMANDS, *SNAPSHOTS])
    await stack.start_gateway()
    wrong: list[str] = []
    async with bystander(stack):
        fill = _filler(stack)
        for attack, connections in COMMANDS.items():
            expected = rows[attack][0]
            for messages in connections:
                async with attacker(stack) as attacking:
                    sent = [fill(message, attacking.epoch) for message in messages]
                    feeds = {"home"} if "caught_up" in expected else set()
                    answer = await attacking.answers(sent, caught_up=feeds)
                if answer not in expected.split(" or "):
                    wrong.append(f"{attack}: {answer}, not {expected}: {messages[0][:80]}")
        wrong += await _snapshots(stack, rows)
    assert wrong == []


async def _snapshots(stack: Stack, rows: dict[str, list[str]]) -> list[str]:
    headers = {"Authorization": f"Bearer {stack.token('attacker')}"}
    wrong = []
    async with httpx.AsyncClient(headers=headers) as client:
        for attack, queries in SNAPSHOTS.items():
            for query in queries:
                answer = await client.get(f"{stack.url}/v1/feeds/home?{query}")
                text = f"{answer.status_code} `{answer.json()['error']['code']}`"
                if text != rows[attack][0]:
                    wrong.append(f"{attack}: {text}, not {rows[attack][0]}: {query[:80]}")
    return wrong


def _filler(stack: Stack) -> Callable[[str, str], str]:
    tokens = {
        "{token}": stack.token("attacker"),
        "{foreign}": stack.token("bystander"),
        "{old}": stack.token("attacker", exp=1),
    }

    def fill(message: str, epoch: str) -> str:
        for name, value in {**tokens, "{epoch}": epoch}.items():
            message = message.replace(name, value)
        return message

    return fill
