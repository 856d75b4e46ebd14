"""The three doors as one kind of client: what came, what it adds up to, and where it goes on.

None of them is our client: each follows `docs/protocol.md` on its own, and folds what it reads into
the state that the page describes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import httpx
from livefeed_client import FeedState
from livefeed_client.state import Cursor, Item
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.servers import Stack, until

Frame = dict[str, Any]


class RefusedAtTheDoor(Exception):
    """What was asked for is not served: the code of the error."""

    def __init__(self, code: str, status: int | None = None) -> None:
        super().__init__(code, status)
        self.code = code
        self.status = status


class Session:
    """One client of one feed through one door; it is not connected before `open`."""

    door: ClassVar[str]

    def __init__(
        self,
        stack: Stack,
        user: str,
        *,
        feed: str = "home",
        cursor: str | None = None,
        state: FeedState | None = None,
        types: str | None = None,
        token: str | None = None,
        **parameters: str,
    ) -> None:
        self.stack = stack
        self.feed = feed
        self.state = FeedState() if state is None else state
        self.cursor = cursor
        self.frames: list[Frame] = []
        self.caught_up = False
        self.closed: int | None = None
        """The close code, as soon as the server has ended it."""
        self.headers = {"Authorization": f"Bearer {token or stack.token(user)}"}
        self.parameters = parameters if types is None else {**parameters, "types": types}
        self._task: asyncio.Task[None] | None = None
        self._resources = AsyncExitStack()

    async def open(self) -> None:
        """Connect; raises RefusedAtTheDoor."""
        raise NotImplementedError

    async def read(self) -> None:
        """Read until the server ends it."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._resources.aclose()

    async def __aenter__(self) -> Session:
        await self.open()
        self._task = asyncio.create_task(self.read(), name=self.door)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def take(self, frame: Frame) -> None:
        """Fold one frame."""
        self.frames.append(frame)
        self.state.apply(frame)
        if frame["type"] in {"caught_up", "reset"}:
            self.caught_up = frame["type"] == "caught_up"

    async def until_caught_up(self) -> None:
        await until(lambda: self.caught_up, what=f"{self.door} has caught up")

    async def until_shown(self, *ids: str) -> None:
        await until(lambda: set(self.ids) == set(ids), what=f"{self.door} shows {ids}")

    @property
    def items(self) -> list[Item]:
        return self.state.items(self.feed)

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    @property
    def updates(self) -> list[Frame]:
        """Every update that came, in order."""
        return [one for frame in self.frames for one in frame.get("updates", ())]

    def frames_of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]


class WebSocketSession(Session):
    """`GET /v1/ws`, subscribing with the cursor."""

    door = "websocket"

    async def open(self) -> None:
        url = httpx.URL(self.stack.url.replace("http", "ws", 1) + "/v1/ws", params=self.parameters)
        try:
            self._socket = await self._resources.enter_async_context(
                connect(str(url), additional_headers=self.headers)
            )
        except InvalidStatus as refused:
            code = json.loads(refused.response.body)["error"]["code"]
            raise RefusedAtTheDoor(code, refused.response.status_code) from refused
        cursor = self.cursor
        self.take(json.loads(await self._socket.recv()))
        subscribe: Frame = {"type": "subscribe", "feeds": [self.feed]}
        if cursor is not None:
            epoch, _, rest = cursor.partition(":")
            pairs = (part.partition("=") for part in rest.split(",") if part)
            positions = {name: int(digits) for name, _, digits in pairs}
            subscribe["cursor"] = {"epoch": epoch, "positions": positions}
        await self._socket.send(json.dumps(subscribe))
        first = json.loads(await self._socket.recv())
        if first["type"] == "error":
            raise RefusedAtTheDoor(first["code"])
        self.take(first)

    async def read(self) -> None:
        try:
            async for text in self._socket:
                self.take(json.loads(text))
        except ConnectionClosed:
            pass
        self.closed = self._socket.close_code

    async def send(self, frame: Frame) -> None:
        """Send a frame of a client."""
        await self._socket.send(json.dumps(frame))

    def take(self, frame: Frame) -> None:
        super().take(frame)
        self.cursor = str(self.state.cursor)


class HttpSession(Session):
    """What the doors over HTTP have in common."""

    path: ClassVar[str]

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.stack.url, headers=self.headers, timeout=60)

    @property
    def url(self) -> str:
        return f"/v1/feeds/{self.feed}/{self.path}"

    @staticmethod
    async def check(answer: httpx.Response) -> None:
        if answer.status_code != httpx.codes.OK:
            await answer.aread()
            raise RefusedAtTheDoor(answer.json()["error"]["code"], answer.status_code)


class EventsSession(HttpSession):
    """`GET /v1/feeds/{feed}/events`, coming back with `Last-Event-ID`."""

    door = "events"
    path = "events"

    async def open(self) -> None:
        client = await self._resources.enter_async_context(self.client())
        headers = {} if self.cursor is None else {"Last-Event-ID": self.cursor}
        stream = client.stream("GET", self.url, params=self.parameters, headers=headers)
        self._answer = await self._resources.enter_async_context(stream)
        await self.check(self._answer)
        assert self._answer.headers["content-type"] == "text/event-stream"

    async def read(self) -> None:
        async for event in self._events():
            frame = json.loads(event["data"])
            assert event["event"] == frame["type"]
            if frame["type"] == "closed":
                self.closed = frame["code"]
                continue
            self.take(frame)
            self.cursor = event["id"]
            # The id of an event is what a client would have worked out for itself.
            assert Cursor.parse(self.cursor) == self.state.cursor

    async def _events(self) -> AsyncIterator[dict[str, str]]:
        fields: dict[str, str] = {}
        async for line in self._answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif not line and "data" in fields:
                yield fields
                fields = {}


class PollSession(HttpSession):
    """`GET /v1/feeds/{feed}/updates`, again and again."""

    door = "updates"
    path = "updates"

    async def open(self) -> None:
        self._client = await self._resources.enter_async_context(self.client())
        await self.poll(wait=0)

    async def read(self) -> None:
        while True:
            try:
                await self.poll(wait=25)
            except RefusedAtTheDoor as refused:
                if refused.status == httpx.codes.SERVICE_UNAVAILABLE:
                    await asyncio.sleep(0.2)
                    continue
                self.closed = refused.status
                return

    async def poll(self, *, wait: int) -> Frame:
        """Ask once."""
        parameters = {"wait": str(wait), **self.parameters}
        if self.cursor is not None:
            parameters["cursor"] = self.cursor
        answer = await self._client.get(self.url, params=parameters)
        await self.check(answer)
        body: Frame = answer.json()
        cursor = Cursor.parse(body["cursor"])
        if "reset" in body:
            self.take({"type": "reset", "feeds": [self.feed], **body["reset"]})
        self.take({"type": "connection_established", "epoch": cursor.epoch})
        self.take({**body, "type": "feed_updates", "cursor": cursor.positions})
        self.cursor = body["cursor"]
        if not body["more"]:
            self.take({"type": "caught_up", "feeds": [self.feed]})
        return body


DOORS: tuple[type[Session], ...] = (WebSocketSession, EventsSession, PollSession)
