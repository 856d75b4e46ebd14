"""A server of keys: real HTTP on the loopback, whose answer a test changes as it goes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm


@functools.cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a private key of this name; it takes a while to make one."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ed25519_key(name: str) -> ed25519.Ed25519PrivateKey:
    """Return a private key of this name."""
    return ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, name: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a key as a JWKS has it; None for a field leaves it out."""
    algorithm = OKPAlgorithm if isinstance(key, ed25519.Ed25519PrivateKey) else RSAAlgorithm
    public: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    given = {**public, "kid": name, "use": "sig", **fields}
    return {name: value for name, value in given.items() if value is not None}


def jwks(*keys: dict[str, Any]) -> bytes:
    """Return a JWKS."""
    return json.dumps({"keys": keys}).encode()


def signed(key: Any, kid: str | None = None, user: str = "alice", **claims: Any) -> str:
    """Return a token of a user that is good for an hour."""
    algorithm = "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "RS256"
    given = {"sub": user, "exp": int(time.time()) + 3600, **claims}
    return jwt.encode(given, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


class KeyServer:
    """Answers every GET with `status`, `headers` and `body`, after `delay` seconds."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = "200 OK"
        self.headers = ""
        self.delay = 0.0
        self.requests = 0
        self.url = ""
        self._answering: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[KeyServer]:
        """Serve for a while."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
            try:
                yield self
            finally:
                for answer in self._answering:
                    answer.cancel()
                await asyncio.gather(*self._answering, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._answering.add(task)
        try:
            await asyncio.gather(task, return_exceptions=True)
        finally:
            self._answering.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await asyncio.sleep(self.delay)
            head = f"HTTP/1.1 {self.status}\r\nConnection: close\r\n{self.headers}\r\n"
            writer.write(head.encode() + self.body)
            await writer.drain()
