"""One connection after another to a livefeed server, read as one stream of frames."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from livefeed_client.address import is_local, websocket_url
from livefeed_client.state import Change, Cursor, FeedState

SUBPROTOCOL: Final = Subprotocol("livefeed.v1")
FRAME_BYTES_MAX: Final = 8 * 1024 * 1024
RETRY_AFTER_SECONDS_MAX: Final = 300.0
CURSOR_REFUSED: Final = 4503  # The server refuses the cursor.
REFRESH_PAUSE_SECONDS: Final = 5.0
RETRIED_STATUSES: Final = frozenset({408, 425, 429})
"""The only 4xx refusals after which the client comes back; 401 is its own case."""

Token = str | Callable[[], str | Awaitable[str]]


class LiveFeedClosed(Exception):
    """The server does not want this client back; the code is an HTTP status or a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the client waits for what, in seconds."""

    backoff_first: float = 0.5
    """The first wait before coming back is random between 0 and this; it doubles each time."""
    backoff_max: float = 20.0
    stable: float = 60.0
    """A connection that lived this long, or that caught up, starts the backoff anew."""
    open: float = 10.0
    close: float = 2.0
    ping: float = 20.0
    """The client's own pings; without an answer within `ping_timeout` the connection is dead."""
    ping_timeout: float = 20.0


class LiveFeed:
    """A user's feeds, live: iterate over it for frames; `state` holds what they add up to.

    It connects, reconnects and reads while it is iterated over, by one task; the methods may be
    called from others.

    Args:
        url: The server's: http, https, ws or wss.
        token: The user's token, or a function that is asked for one before each connect, and when
            the one in use has run out. When that function raises OSError it is asked again later;
            other errors end the iteration.
        feeds: The names of the feeds to follow.
        cursor: Where to continue; without one everything in the feeds is sent first.
        state: What to continue with, of a snapshot; it has a cursor of its own.
        on_status: Called with `connected`, `disconnected` or `refused` (a connect that failed), and
            a sentence about it.
        timing: Waits and bounds.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token,
        feeds: Sequence[str],
        cursor: Cursor | str | None = None,
        state: FeedState | None = None,
        on_status: Callable[[str, str], None] | None = None,
        timing: Timing = Timing(),
    ) -> None:
        held = Cursor.parse(cursor) if isinstance(cursor, str) else cursor
        self.state = FeedState(held) if state is None else state
        self.changes: list[Change] = []
        """What the last frame changed."""
        self._url = url
        self._token = token
        self._feeds = dict.fromkeys(feeds)
        self._on_status = on_status or (lambda _status, _detail: None)
        self._timing = timing
        self._visible = True
        self._connection: ClientConnection | None = None
        self._told: set[str] = set()
        """Feeds that the server was asked for on this connection."""
        self._left: set[str] = set()
        """Feeds that were unsubscribed on this connection."""
        self._offered_token = ""
        self._refused_token: str | None = None
        self._failures = 0
        self._at_once = False
        """The client itself wants another connection, without a wait."""
        self._not_before = 0.0
        self._connected_at = 0.0
        self._refresh_not_before = 0.0
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._ended.is_set():
            connection = self._connection or await self._connect()
            if connection is None:
                continue
            try:
                text = await connection.recv()
            except ConnectionClosed as closed:
                self._lost(closed)
                continue
            try:
                frame = await self._take(text)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                # Reading on would skip what the frame said; a catch-up says it again.
                connection.transport.abort()
                self._connection = None
                self._come_back("disconnected", f"a frame that is none: {error!r}")
                continue
            if frame.get("code") == "token_expired":
                await self._refresh_soon()
            return frame
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the iteration and the connection."""
        self._ended.set()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def subscribe(self, feeds: Iterable[str]) -> None:
        """Follow more feeds, now if connected and on every connection from now on."""
        names = dict.fromkeys(feeds)
        self._feeds |= names
        if self._left.isdisjoint(names):
            await self._tell()
        elif self._connection is not None:
            # Frames of the old subscription may still be under way and cannot be told from those
            # of the new one; on a new connection there are none.
            self._at_once = True
            await self.drop_connection()

    async def unsubscribe(self, feeds: Iterable[str]) -> None:
        """Follow these feeds no more, and forget their state."""
        names = dict.fromkeys(feeds)
        self._feeds = {name: None for name in self._feeds if name not in names}
        self.state.drop(names)
        told = [name for name in names if name in self._told]
        self._told.difference_update(told)
        self._left.update(told)
        if told:
            await self._send({"type": "unsubscribe", "feeds": told})

    async def seen(self, device: str = "default") -> None:
        """Say that everything received so far was shown; without a connection nothing is said."""
        cursor = self.state.cursor.of(self._feeds).to_frame()
        await self._send({"type": "seen", "cursor": cursor, "device": device})

    async def set_visibility(self, *, visible: bool) -> None:
        """Say whether anybody looks: what nobody looks at may come later."""
        if visible != self._visible:
            self._visible = visible
            await self._send_visibility()

    async def refresh(self) -> None:
        """Give the server a new token before the old one runs out."""
        await self._send({"type": "refresh", "token": await resolve_token(self._token)})

    async def drop_connection(self) -> None:
        """Cut the connection without a goodbye, as a network would; the client comes back."""
        if self._connection is not None:
            self._connection.transport.abort()
            await asyncio.sleep(0)

    # Connecting.

    async def _connect(self) -> ClientConnection | None:
        """Try once, after the wait that is due; None when it failed or the end has come."""
        await self._wait_turn()
        if self._ended.is_set():
            return None
        # What is held decides how to begin: with nothing, the URL says it all.
        fresh = not self.state.cursor.of(self._feeds).positions
        feeds = list(self._feeds) if fresh else []
        try:
            connection = await self._open(feeds)
        except InvalidStatus as refused:
            self._refused(refused.response)
            return None
        except (OSError, InvalidHandshake) as error:
            self._come_back("refused", f"{type(error).__name__}: {error}")
            return None
        try:
            await self._opened(connection, feeds)
        except BaseException:
            # Half of what the server has to know was said, or none of it.
            connection.transport.abort()
            raise
        return connection

    async def _wait_turn(self) -> None:
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > 0:
            try:
                await asyncio.wait_for(self._ended.wait(), wait)
            except TimeoutError:
                return

    async def _open(self, feeds: list[str]) -> ClientConnection:
        token = self._offered_token = await resolve_token(self._token)
        if token == self._refused_token:
            self._end(401, "the token was refused")
        return await connect(
            websocket_url(self._url, feeds),
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=[SUBPROTOCOL],
            compression=None,
            # No proxy can reach this computer's own loopback.
            proxy=None if is_local(self._url) else True,
            max_size=FRAME_BYTES_MAX,
            open_timeout=self._timing.open,
            close_timeout=self._timing.close,
            ping_interval=self._timing.ping,
            ping_timeout=self._timing.ping_timeout,
        )

    async def _opened(self, connection: ClientConnection, feeds: list[str]) -> None:
        self._connection = connection
        self._connected_at = asyncio.get_running_loop().time()
        self._refused_token = None
        self._at_once = False
        self._told = set(feeds)
        self._left = set()
        self._on_status("connected", websocket_url(self._url, []))
        await self._tell()
        # A feed may have been left, or the end have come, while the connection was opened.
        await self.unsubscribe([name for name in feeds if name not in self._feeds])
        if self._ended.is_set():
            await self.aclose()
        if not self._visible:
            await self._send_visibility()

    def _refused(self, answer: Response) -> None:
        status, reason = answer.status_code, _refusal_message(answer)
        if status == 401 and callable(self._token):
            self._refused_token = self._offered_token
        elif 400 <= status < 500 and status not in RETRIED_STATUSES:
            self._end(status, reason)
        text = answer.headers.get("Retry-After", "")
        seconds = float(text) if text.isdecimal() else 0.0
        self._come_back(
            "refused", f"{status} {reason}", at_least=min(seconds, RETRY_AFTER_SECONDS_MAX)
        )

    # Frames.

    async def _take(self, text: str | bytes) -> dict[str, Any]:
        """Fold one frame, and do what it asks for.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, RecursionError: It is not a frame.
        """
        frame: dict[str, Any] = json.loads(text)
        self.changes = self.state.apply(frame)
        match frame.get("type"):
            case "caught_up":
                self._failures = 0
            case "error" if str(frame.get("code", "")).startswith("cursor_"):
                # Nothing was subscribed, and coming back changes nothing.
                await self.aclose()
                raise LiveFeedClosed(CURSOR_REFUSED, str(frame.get("message", "")))
            case "reconnect":
                await self._leave(frame["afterMs"] / 1000, str(frame.get("reason", "")))
        return frame

    async def _refresh_soon(self) -> None:
        """Answer the server's warning that the token ran out, seldom: it may warn again."""
        now = asyncio.get_running_loop().time()
        if callable(self._token) and now >= self._refresh_not_before:
            self._refresh_not_before = now + REFRESH_PAUSE_SECONDS
            # Without a new token the server closes with 4001, and the client comes back with one.
            with contextlib.suppress(OSError):
                await self.refresh()

    async def _leave(self, seconds: float, reason: str) -> None:
        """Close, and come back after the time that the server chose: it spreads its clients."""
        connection, self._connection = self._connection, None
        self._not_before = asyncio.get_running_loop().time() + seconds
        self._on_status("disconnected", f"asked to: {reason}; next attempt in {seconds:.2f} s")
        if connection is not None:
            await connection.close()

    async def _tell(self) -> None:
        """Subscribe to what the server was not asked for yet on this connection."""
        feeds = [name for name in self._feeds if name not in self._told]
        if not feeds or self._connection is None:
            return
        self._told.update(feeds)
        frame: dict[str, Any] = {"type": "subscribe", "feeds": feeds}
        cursor = self.state.cursor.of(feeds)
        if cursor.positions:
            frame["cursor"] = cursor.to_frame()
        await self._send(frame)

    async def _send_visibility(self) -> None:
        state = "visible" if self._visible else "hidden"
        await self._send({"type": "visibility", "state": state})

    async def _send(self, frame: Mapping[str, Any]) -> None:
        if self._connection is None:
            return
        try:
            await self._connection.send(json.dumps(frame, separators=(",", ":")))
        except ConnectionClosed:
            return  # Whoever reads notices, and comes back.

    # Coming back.

    def _lost(self, closed: ConnectionClosed) -> None:
        self._connection = None
        if self._ended.is_set():
            return
        if asyncio.get_running_loop().time() - self._connected_at >= self._timing.stable:
            self._failures = 0
        code, reason = _close_code(closed)
        if 4500 <= code <= 4999:
            self._on_status("disconnected", f"{code} {reason}")
            self._end(code, reason)
        self._come_back("disconnected", f"{code} {reason}")

    def _come_back(self, status: str, detail: str, *, at_least: float = 0.0) -> None:
        """Set the time of the next attempt: full jitter under a bound that doubles."""
        timing = self._timing
        # The exponent is bounded too: after days without a network it would overflow a float.
        bound = min(timing.backoff_max, timing.backoff_first * 2 ** min(self._failures, 32))
        wait = 0.0 if self._at_once else at_least + random.uniform(0, bound)
        self._at_once = False
        self._failures += 1
        self._not_before = asyncio.get_running_loop().time() + wait
        self._on_status(status, f"{detail.rstrip()}; next attempt in {wait:.2f} s")

    def _end(self, code: int, reason: str) -> None:
        self._ended.set()
        raise LiveFeedClosed(code, reason)


async def resolve_token(token: Token) -> str:
    """The token itself, or what the function for it gives."""
    if isinstance(token, str):
        return token
    given = token()
    return await given if inspect.isawaitable(given) else given


def _close_code(closed: ConnectionClosed) -> tuple[int, str]:
    """The server's close code, or 1006 when it said none."""
    if closed.rcvd is not None:
        return closed.rcvd.code, closed.rcvd.reason
    return 1006, closed.sent.reason if closed.sent is not None else "the connection broke"


def _refusal_message(answer: Response) -> str:
    """What an error answer says, in the server's words if they can be read."""
    try:
        return str(json.loads(answer.body or b"")["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return answer.reason_phrase
