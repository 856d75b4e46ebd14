"""Calls of a feed source: in time, whatever it does with the news that it is too late."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway import source_pages
from gateway.source_pages import SourcePages, SourceQuery
from livefeed.adapters.postgres.reads import Heads
from livefeed.errors import Unavailable
from livefeed.feed_source import SourcePage, SourceRequest
from livefeed.filters import ALL_TYPES
from livefeed.limits import SOURCE_LATE_MAX
from tests.servers import until

QUERY = SourceQuery("tests:source", 5, None, ALL_TYPES)


class Reader:
    """Knows heads of everything."""

    async def heads_anywhere(self, channels: Sequence[str]) -> tuple[None, Heads]:
        """All at 0, of no server."""
        return None, Heads("e1", dict.fromkeys(channels, 0), dict.fromkeys(channels, 0))


class Source:
    """Answers, fails, hangs, or hangs and will not be told."""

    def __init__(self) -> None:
        self.mode = "well"
        self.calls = 0
        self.go = asyncio.Event()

    async def __call__(self, request: SourceRequest) -> SourcePage:
        self.calls += 1
        if self.mode == "fails":
            raise RuntimeError("told to")
        while self.mode == "stubborn" and not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()
        if self.mode == "hangs":
            await self.go.wait()
        if self.mode == "cancels":
            raise asyncio.CancelledError
        return SourcePage([{"id": "p1"}])


@pytest.fixture
async def source(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Source]:
    monkeypatch.setattr(source_pages, "SOURCE_SECONDS_MAX", 0.05)
    source = Source()
    yield source
    source.go.set()
    await asyncio.sleep(0)


def pages_of(source: Source) -> SourcePages:
    return SourcePages(Reader(), "tests:source", source, lambda _server: dict)  # type: ignore[arg-type]


async def read(pages: SourcePages, user: str = "alice") -> bytes:
    return await pages.read(user, "home", QUERY)


@pytest.mark.parametrize("mode", ["hangs", "stubborn"])
async def test_one_that_is_late_is_not_waited_for(source: Source, mode: str) -> None:
    """Not even for the end that it is told to come to; when it answers again it is asked again."""
    pages = pages_of(source)
    source.mode = mode
    for _ in range(3):
        began_at = time.monotonic()
        with pytest.raises(Unavailable, match="no answer within"):
            await read(pages)
        assert time.monotonic() - began_at < 1.0
    with pytest.raises(Unavailable, match="left alone"):
        await read(pages)
    assert source.calls == 3
    source.mode = "well"
    source.go.set()
    await until(lambda: not pages._late, what="those that were late have ended")
    await asyncio.sleep(max(0.0, pages.breaker.retry_at() - time.monotonic()))
    assert b"p1" in await read(pages)
    assert pages.breaker.state == "closed"


async def test_calls_that_never_end_are_bounded(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so many of them it is not called, and that is said; it is when one of them has ended."""
    monkeypatch.setattr(source_pages, "SOURCE_SECONDS_MAX", 0.01)
    pages = pages_of(source)
    source.mode = "stubborn"
    while len(pages._late) < SOURCE_LATE_MAX:
        pages.breaker.succeeded()
        with pytest.raises(Unavailable):
            await read(pages)
    for _ in range(3):
        pages.breaker.succeeded()
        with pytest.raises(Unavailable, match="have not ended yet"):
            await read(pages)
    assert source.calls == SOURCE_LATE_MAX
    source.mode = "well"
    source.go.set()
    await until(lambda: not pages._late, what="they have ended")
    assert b"p1" in await read(pages)


@pytest.mark.parametrize("mode", ["fails", "cancels"])
async def test_what_goes_wrong_in_it_is_said(source: Source, mode: str) -> None:
    """Also where it cancels itself: whoever waits is not cancelled."""
    pages = pages_of(source)
    source.mode = mode
    with pytest.raises(Unavailable, match="feed source"):
        await read(pages)
    assert not pages._late


async def test_one_call_at_a_time_finds_out_whether_it_is_back(source: Source) -> None:
    """However many were under way when it was left alone, and however they end."""
    pages = pages_of(source)
    source.mode = "hangs"
    early = [asyncio.create_task(read(pages, f"u{number}")) for number in range(20)]
    done: list[Any] = await asyncio.gather(*early, return_exceptions=True)
    assert {type(one) for one in done} == {Unavailable}
    wait = pages.breaker.retry_at() - time.monotonic()
    assert wait < 0.5, "twenty that failed together are one reason to leave it alone"
    await asyncio.sleep(max(0.0, wait))
    calls = source.calls
    probes = [asyncio.create_task(read(pages, f"u{number}")) for number in range(20)]
    await asyncio.gather(*probes, return_exceptions=True)
    assert source.calls == calls + 1


async def test_who_asks_may_be_cancelled(source: Source) -> None:
    """The source is told to end, and nothing is said about it."""
    pages = pages_of(source)
    source.mode = "hangs"
    asking = asyncio.create_task(read(pages))
    await until(lambda: source.calls, what="it is asked")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: not pages._late, what="it has ended")
    assert pages.breaker.state == "closed"
