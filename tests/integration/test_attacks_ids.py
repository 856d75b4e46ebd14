"""Each row of the table of ids is a user or none, and a feed or none; no id widens or splits."""

import json

import httpx
import pytest

from livefeed.errors import UpdateRefused
from livefeed.identity import token
from livefeed.update import parse_update
from tests.bystander import assert_same_rows, attacker, bystander, table
from tests.servers import Stack, until, update

IDS = {
    "empty": "",
    "a blank": " ",
    "a tab": "a\tb",
    "CR": "a\r",
    "LF": "a\n",
    "CRLF and a `PUB`": "a\r\nPUB feed.updates.high.x 2\r\n{}",
    **{
        f"`{name}`": name
        for name in ("*", ">", "a.*", "a.>", ".", "..", ".a", "a.", "$SYS", "_INBOX.x", "$KV.x")
    },
    "`$JS.API.STREAM.DELETE.FEED_UPDATES`": "$JS.API.STREAM.DELETE.FEED_UPDATES",
    "NUL": "a\0b",
    "DEL": "a\x7f",
    "a lone surrogate": "a\ud800",
    "a no-break space": "a\u00a0b",
    "U+2028": "a\u2028b",
    "a right-to-left mark": "a\u200fb",
    "é composed": "\u00e9",
    "é decomposed": "e\u0301",
    "an emoji": "\U0001f4f0",
    "64 bytes": "a" * 64,
    "65 bytes": "a" * 65,
    "128 characters, 256 bytes": "\u00e9" * 128,
    "255 bytes": "a" * 255,
    "256 bytes": "a" * 256,
    "4,096 bytes": "a" * 4096,
    "5,000 bytes": "a" * 5000,
    "`%2e`": "%2e",
    "`a/b`": "a/b",
    "a backslash": "a\\b",
    "`../`": "../",
    "like a hash of ours": token("a" * 128),
    "like an id encoded by us": token("bystander") + "=",
    "`Alice`": "Alice",
    "`alice`": "alice",
    "quotes and SQL": "'; drop table feed_entry; --\"",
}


async def test_ids(stack: Stack) -> None:
    """What is no id is refused as it is; what is one is a user of its own, and nobody else."""
    rows = table("Ids and subjects")
    assert_same_rows(rows, IDS)
    await stack.start_gateway()
    async with bystander(stack):
        assert await _as_users(stack) == {name: row[0] for name, row in rows.items()}
        assert await _as_feeds(stack, rows) == {name: row[1] for name, row in rows.items()}
        users = [IDS[name] for name, row in rows.items() if row[0] == "accepted"]
        await _each_gets_its_own(stack, users)


@pytest.mark.parametrize("name", IDS)
def test_publishers_follow_the_same_rule(name: str) -> None:
    """An update for what is no user is a dead letter."""
    accepted = table("Ids and subjects")[name][0] == "accepted"
    payload = json.dumps(update(IDS[name])).encode()
    if accepted:
        parse_update(payload, now_microseconds=2**52)
    else:
        with pytest.raises(UpdateRefused):
            parse_update(payload, now_microseconds=2**52)


async def _as_users(stack: Stack) -> dict[str, str]:
    answers = {}
    async with httpx.AsyncClient() as client:
        for name, user in IDS.items():
            headers = {"Authorization": f"Bearer {stack.token(user)}"}
            answer = await client.get(f"{stack.url}/v1/feeds/home", headers=headers)
            answers[name] = "accepted"
            if answer.status_code != httpx.codes.OK:
                answers[name] = f"{answer.status_code} `{answer.json()['error']['code']}`"
    return answers


async def _as_feeds(stack: Stack, rows: dict[str, list[str]]) -> dict[str, str]:
    answers = {}
    for name, feed in IDS.items():
        async with attacker(stack) as attacking:
            frame = json.dumps({"type": "subscribe", "feeds": [feed]})
            feeds = {feed} if rows[name][1] == "`caught_up`" else set()
            answers[name] = await attacking.answers([frame], caught_up=feeds)
    return answers


async def _each_gets_its_own(stack: Stack, users: list[str]) -> None:
    devices = {user: stack.follow(user) for user in users}
    for device in devices.values():
        await device.caught_up()
    updates = [update(user, id=f"for {number}") for number, user in enumerate(users)]
    await stack.publish(updates, "high")
    await stack.settled()
    for number, (user, device) in enumerate(devices.items()):
        await until(lambda device=device: device.ids("home"), what=f"the update of {user!r}")
        assert device.ids("home") == [f"for {number}"]
