"""The authorizer: an operator's function that is asked beside the claim, at every door."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway import authorizer
from gateway.authorizer import Authorizer
from livefeed.access import Principal
from livefeed.limits import AUTHORIZED_SECONDS
from tests.servers import Stack

ALICE = Principal("alice", ("*",), 2e9)
PLUG_IN = """
    import asyncio

    async def may_follow(user, feed):
        match feed.partition("-")[0]:
            case "broken":
                raise RuntimeError("its database is away")
            case "slow":
                await asyncio.sleep(60)
            case "odd":
                return "yes"
        return feed in {"home", "trending"} or (user, feed) == ("alice", "diary")
"""


class Policy:
    """Answers what a test says, and counts."""

    def __init__(self) -> None:
        self.answer: Any = True
        self.asked: list[tuple[str, str]] = []
        self.now = 0.0

    async def __call__(self, user_id: str, feed: str) -> Any:
        self.asked.append((user_id, feed))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def authorizer(self) -> Authorizer:
        """One that asks it, by its clock."""
        return Authorizer(self, clock=lambda: self.now)


async def test_many_who_want_to_know_the_same_cost_one_question() -> None:
    """Whoever asks first may go away; an answer that does not come is none for all of them."""
    policy, go = Policy(), asyncio.Event()

    async def slow(user_id: str, feed: str) -> Any:
        await go.wait()
        return await policy(user_id, feed)

    asking = Authorizer(slow, clock=lambda: policy.now)
    asks = [asyncio.create_task(asking.refusals(ALICE, ["home"])) for _ in range(1_000)]
    await asyncio.sleep(0)
    asks.pop(0).cancel()
    go.set()
    assert await asyncio.gather(*asks) == [{}] * 999
    assert policy.asked == [("alice", "home")]
    policy.answer = RuntimeError("away")
    refused = await asyncio.gather(*(asking.refusals(ALICE, ["other"]) for _ in range(100)))
    assert refused == [{"other": "unavailable"}] * 100
    assert policy.asked[1:] == [("alice", "other")]
    assert not asking._asking


async def test_an_answer_is_believed_for_a_while() -> None:
    """One question for each user and feed, and another when the answer has become old."""
    policy = Policy()
    asking = policy.authorizer()
    for _ in range(3):
        assert await asking.refusals(ALICE, ["home", "other", "home"]) == {}
    assert sorted(policy.asked) == [("alice", "home"), ("alice", "other")]
    policy.answer, policy.now = False, AUTHORIZED_SECONDS - 1
    assert await asking.refusals(ALICE, ["home"]) == {}
    policy.now = AUTHORIZED_SECONDS
    assert await asking.refusals(ALICE, ["home"]) == {"home": "feed_forbidden"}


@pytest.mark.parametrize("answer", [RuntimeError("x"), OSError(), TimeoutError(), 1, None, "yes"])
async def test_no_answer_is_a_refusal_that_is_not_remembered(answer: Any) -> None:
    """Whatever it raises or returns but True and False."""
    policy = Policy()
    policy.answer = answer
    asking = policy.authorizer()
    assert await asking.refusals(ALICE, ["home"]) == {"home": "unavailable"}
    policy.answer = True
    assert await asking.refusals(ALICE, ["home"]) == {}


async def test_what_the_claim_refuses_is_not_asked() -> None:
    """The function may only take away; and what is no feed's name never reaches it."""
    policy = Policy()
    principal = Principal("alice", ("home",), 2e9)
    assert await policy.authorizer().refusals(principal, ["other", "a.*", "home"]) == {}
    assert policy.asked == [("alice", "home")]


async def test_answers_and_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many users come: the oldest answers go, and few questions are asked at once."""
    monkeypatch.setattr(authorizer, "AUTHORIZED_MAX", 10)
    monkeypatch.setattr(authorizer, "AUTHORIZE_AT_ONCE", 3)
    at_once, most = 0, 0

    async def ask(_user: str, _feed: str) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return True

    asking = Authorizer(ask, clock=lambda: 0.0)
    feeds = [f"feed-{number}" for number in range(100)]
    assert await asking.refusals(ALICE, feeds) == {}
    assert most == 3
    assert len(asking._answers) == 10


async def test_every_door_asks(stack: Stack) -> None:
    """A handshake, a `subscribe`, a refresh and a snapshot; what gives no answer is unavailable."""
    stack.plug_in(PLUG_IN, authorizer="may_follow")
    gateway = await stack.start_gateway()
    headers = {"Authorization": f"Bearer {stack.token('bob')}"}
    url = f"{stack.url}/v1/ws".replace("http", "ws")
    for feeds, status, code in [
        ("diary", 403, "feed_forbidden"),
        ("diary,broken", 503, "unavailable"),
        ("slow", 503, "unavailable"),
    ]:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url}?feeds={feeds}", additional_headers=headers)
        answer = refused.value.response
        assert (answer.status_code, json.loads(answer.body)["error"]["code"]) == (status, code)
    async with connect(f"{url}?feeds=home,diary", additional_headers=headers) as socket:

        async def ask(**frame: Any) -> dict[str, Any]:
            await socket.send(json.dumps(frame))
            answer: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
            return answer

        first = [json.loads(await asyncio.wait_for(socket.recv(), 10)) for _ in range(3)]
        assert first[0]["subscribedFeeds"] == ["home"]
        assert {one.get("code") for one in first[1:]} == {"feed_forbidden", None}
        for feed, code in [("diary", "feed_forbidden"), ("broken", "unavailable")]:
            answer = await ask(type="subscribe", feeds=[feed])
            assert (answer["code"], answer["retryable"]) == (code, code == "unavailable")
        assert (await ask(type="subscribe", feeds=["trending"]))["type"] == "caught_up"
    async with httpx.AsyncClient(headers=headers) as client:
        statuses = [
            (await client.get(f"{stack.url}/v1/feeds/{feed}")).status_code
            for feed in ("home", "diary", "odd")
        ]
    assert statuses == [200, 403, 503]
    assert "Traceback" not in gateway.output()


async def test_a_gateway_without_its_authorizer_does_not_start(stack: Stack) -> None:
    """One that cannot be imported is said at the start, not by the first user."""
    stack.settings["authorizer"] = "nowhere:may_follow"
    gateway = await stack.start_gateway(wait=False)
    assert await gateway.wait() != 0
    assert "LIVEFEED_AUTHORIZER" in gateway.output()
    assert "Traceback" not in gateway.output()
