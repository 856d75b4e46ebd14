"""What a cloud node talks to, as real HTTP servers on the loopback: its metadata, and AWS.

The metadata service has version 2 alone, as the real one where tokens are required: no answer
without a token, tokens that expire, and no token for what came through a proxy. AWS recomputes the
signature of each request and refuses what does not match.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from tests.servers import server_port

KEY_ID: Final = "AKIDNODE"
SECRET: Final = "what only this node and AWS know"
REGION: Final = "eu-west-1"
INSTANCE: Final = "i-0123456789abcdef0"
METADATA: Final = "/latest/meta-data/"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What it is answered with."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpServer:
    """Answers one request a connection; down while it is stopped."""

    def __init__(self) -> None:
        self.port: Final = server_port()
        self.url: Final = f"http://127.0.0.1:{self.port}"
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Listen no more, and end what is under way."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Any:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def answer(self, request: Request) -> Answer:
        """Answer a request."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if request := await _read(reader):
                answer = self.answer(request)
                head = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {len(answer.body)}"]
                head += ["Connection: close"]
                head += [f"{name}: {value}" for name, value in answer.headers.items()]
                writer.write("\r\n".join([*head, "", ""]).encode() + answer.body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client has gone, or the test is over.
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    line = (await reader.readline()).decode().split()
    if len(line) < 2:
        return None
    headers = {}
    while text := (await reader.readline()).decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect") == "100-continue":
        raise AssertionError("a body that asks first is not expected here")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line[0], line[1], headers, body)


class MetadataServer(HttpServer):
    """The instance metadata service of one node."""

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, str] = {
            "instance-id": INSTANCE,
            "placement/region": REGION,
            "autoscaling/target-lifecycle-state": "InService",
        }
        self.tokens: dict[str, float] = {}
        """Until when each is valid."""
        self.token_seconds_max = 21_600.0
        self.asked: list[tuple[str, int]] = []
        """Items, each with the status of its answer."""

    def terminate(self) -> None:
        """The group ends this node."""
        self.items["autoscaling/target-lifecycle-state"] = "Terminated"

    def take_back(self, seconds: float) -> None:
        """The cloud takes this spot node back."""
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self.items["spot/instance-action"] = (
            f'{{"action": "terminate", "time": "{at:%Y-%m-%dT%H:%M:%SZ}"}}'
        )

    def answer(self, request: Request) -> Answer:
        if request.path == "/latest/api/token":
            return self._token(request)
        name = request.path.removeprefix(METADATA)
        answer = self._item(name, request)
        self.asked.append((name, answer.status))
        return answer

    def _token(self, request: Request) -> Answer:
        if request.method != "PUT":
            return Answer(405)
        if "x-forwarded-for" in request.headers:
            return Answer(403)
        asked = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not asked.isdigit() or not 1 <= int(asked) <= 21_600:
            return Answer(400)
        token = secrets.token_urlsafe(40)
        self.tokens[token] = time.monotonic() + min(int(asked), self.token_seconds_max)
        return Answer(200, token.encode())

    def _item(self, name: str, request: Request) -> Answer:
        token = request.headers.get("x-aws-ec2-metadata-token", "")
        if time.monotonic() >= self.tokens.get(token, 0):
            return Answer(401)
        if request.method != "GET":
            return Answer(405)
        text = self.items.get(name)
        return Answer(404) if text is None else Answer(200, text.encode())


@dataclass(frozen=True, slots=True)
class Call:
    """One call to AWS whose signature was right."""

    at: float
    service: str
    action: str
    fields: dict[str, Any]


class AwsServer(HttpServer):
    """EC2 Auto Scaling and CloudWatch, as far as a node's agent calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.refused: list[str] = []
        """Why requests were refused that should not have come."""
        self.waiting = True
        """Whether a lifecycle action waits for the node: not before the balancer has let go."""
        self.failures = 0
        """So many of the next calls are answered with 500."""

    def of(self, action: str) -> list[Call]:
        """The calls of one action."""
        return [call for call in self.calls if call.action == action]

    def answer(self, request: Request) -> Answer:
        try:
            service = _verified(request)
            action, fields = _said(request)
        except (KeyError, ValueError) as error:
            self.refused.append(repr(error))
            return Answer(403, _error("SignatureDoesNotMatch", str(error)))
        self.calls.append(Call(time.monotonic(), service, action, fields))
        if self.failures > 0:
            self.failures -= 1
            return Answer(500, _error("InternalFailure", "try again"))
        if service == "monitoring":
            return Answer(200, b"{}", {"Content-Type": "application/x-amz-json-1.0"})
        if not self.waiting:
            detail = f"No active Lifecycle Action found with instance ID {INSTANCE}"
            return Answer(400, _error("ValidationError", detail))
        if action == "CompleteLifecycleAction":
            self.waiting = False
        return Answer(200, _result(action))


def _verified(request: Request) -> str:
    """The service for which a request is signed with our key; raises ValueError."""
    scheme, _, rest = request.headers["authorization"].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    key_id, date, region, service, end = parts["Credential"].split("/")
    if (scheme, key_id, region, end) != ("AWS4-HMAC-SHA256", KEY_ID, REGION, "aws4_request"):
        raise ValueError(f"signed by another, or for another region: {parts['Credential']}")
    path, _, query = request.path.partition("?")
    names = parts["SignedHeaders"].split(";")
    lines = [f"{name}:{' '.join(request.headers[name].split())}" for name in names]
    digest = hashlib.sha256(request.body).hexdigest()
    whole = "\n".join([request.method, path, query, *lines, "", ";".join(names), digest])
    scope = f"{date}/{region}/{service}/aws4_request"
    hashed = hashlib.sha256(whole.encode()).hexdigest()
    signed = "\n".join([scheme, request.headers["x-amz-date"], scope, hashed])
    key = f"AWS4{SECRET}".encode()
    for word in (date, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    wanted = hmac.digest(key, signed.encode(), "sha256").hex()
    if not hmac.compare_digest(wanted, parts["Signature"]):
        raise ValueError(f"the signature does not match; signed was {whole!r}")
    return service


def _said(request: Request) -> tuple[str, dict[str, Any]]:
    """The action of a request and its fields: of CloudWatch in JSON, of groups as a form."""
    body = request.body
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    target = request.headers.get("x-amz-target")
    if target is not None:
        return target.rpartition(".")[2], json.loads(body)
    fields: dict[str, Any] = dict(parse_qsl(body.decode(), strict_parsing=True))
    return fields.pop("Action"), fields


def _error(code: str, detail: str) -> bytes:
    inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{detail}</Message>"
    return f"<ErrorResponse><Error>{inner}</Error><RequestId>1</RequestId></ErrorResponse>".encode()


def _result(action: str) -> bytes:
    about = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
    inner = f"<{action}Result/>{about}"
    return f"<{action}Response>{inner}</{action}Response>".encode()
