"""Reads a JWKS from its server, or from a file; the one place of the gateway that speaks HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from livefeed.adapters.key_set import ReadKeys
from livefeed.adapters.tokens import keys_of
from livefeed.errors import Unavailable
from livefeed.limits import KEYS_BYTES_MAX, KEYS_FETCH_SECONDS_MAX

HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


def key_reader(location: str, algorithm: str) -> ReadKeys:
    """What reads the keys for an algorithm at a URL, or in a file."""

    async def read() -> dict[str | None, object]:
        try:
            async with asyncio.timeout(KEYS_FETCH_SECONDS_MAX):
                if urlsplit(location).scheme in {"http", "https"}:
                    document = await _fetch(location)
                else:
                    document = await asyncio.to_thread(_read_file, Path(location))
            return dict(keys_of(document, algorithm))
        except TimeoutError:
            fault = f"it took longer than {KEYS_FETCH_SECONDS_MAX:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            fault = str(error) or type(error).__name__
        raise Unavailable("key server", f"{location}: {fault}")

    return read


async def _fetch(url: str) -> bytes:
    """The body of an answer; raises httpx.HTTPError, ValueError."""
    # A proxy of the environment is the way to a server outside, and no way to our own loopback.
    secure = urlsplit(url).scheme == "https"
    document = bytearray()
    # No redirects: where the keys are is for the setting to say, not for whoever answers.
    async with (
        httpx.AsyncClient(headers=HEADERS, trust_env=secure) as client,
        client.stream("GET", url) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"it answered {answer.status_code}")
        async for part in answer.aiter_raw():
            document += part
            if len(document) > KEYS_BYTES_MAX:
                raise ValueError(f"it is larger than {KEYS_BYTES_MAX} bytes")
    return bytes(document)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        document = file.read(KEYS_BYTES_MAX + 1)
    if len(document) > KEYS_BYTES_MAX:
        raise ValueError(f"it is larger than {KEYS_BYTES_MAX} bytes")
    return document
