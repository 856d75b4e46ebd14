"""One bounded request, for the little that is asked over HTTP: health, monitoring, node metadata.

Not urllib in a thread: a server that drips its answer would hold the thread, and with it our exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from livefeed.errors import Misconfigured, Unavailable
from livefeed.limits import MIB

ANSWER_BYTES_MAX: Final = 1 * MIB
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


async def get(url: str, *, seconds_max: float, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
    """Ask for one page, as `request` does."""
    return await request("GET", url, seconds_max=seconds_max, headers=headers)


async def request(
    method: str, url: str, *, seconds_max: float, headers: Mapping[str, str] = NO_HEADERS
) -> Answer:
    """Send a request without a body; follows no redirect and uses no proxy.

    Raises:
        Unavailable: No whole answer came in time, or one above 1 MiB.
        Misconfigured: For what is not an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misconfigured(f"{url} is not an http or https URL")
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
        async with asyncio.timeout(seconds_max):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=ssl.create_default_context() if secure else None
            )
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            lines = [f"{method} {target} HTTP/1.0", f"Host: {parts.netloc}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode())
                return await _answer(reader)
            finally:
                writer.transport.abort()
                # How it ended is a future of its own, which would be logged unless it is looked at.
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise Unavailable(parts.netloc, f"no answer within {seconds_max:g} s") from error
    except (OSError, ValueError) as error:
        raise Unavailable(parts.netloc, str(error) or type(error).__name__) from error


async def _answer(reader: asyncio.StreamReader) -> Answer:
    # HTTP/1.0: the answer has no chunks, and ends with the connection.
    whole = bytearray()
    while part := await reader.read(65536):
        whole += part
        if len(whole) > ANSWER_BYTES_MAX:
            raise ValueError(f"its answer is above {ANSWER_BYTES_MAX} bytes")
    head, _, body = bytes(whole).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not head.startswith(b"HTTP/") or len(words) < 2 or not words[1][:3].isdigit():
        raise ValueError("its answer is not HTTP")
    return Answer(int(words[1][:3]), body)
