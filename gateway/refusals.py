"""How the doors say no over HTTP: a status, and the error as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from livefeed.admission import RETRY_AFTER_SECONDS, retry_after_seconds
from livefeed.errors import Overloaded, Refused, Unavailable
from livefeed.protocol import ERRORS

STATUS: Final[Mapping[str, int]] = {
    "token_invalid": 401,
    "token_expired": 401,
    "token_revoked": 401,
    "feed_forbidden": 403,
    "origin_forbidden": 403,
    "feed_invalid": 400,
    "too_many_feeds": 400,
    "parameter_invalid": 400,
    "cursor_invalid": 400,
    "cursor_foreign": 400,
    "upgrade_required": 426,
    "too_many_connections": 429,
    "draining": 503,
    "busy": 503,
    "full": 503,
    "unavailable": 503,
}

Refusal = Refused | Overloaded | Unavailable
"""What a request may be refused with: for ever, or for a while."""


def code_of(error: Refusal) -> str:
    """The code that the client is told."""
    return "unavailable" if isinstance(error, Unavailable) else error.code


def refusal(error: Refusal) -> Response:
    """The answer to a request that is refused."""
    code = code_of(error)
    # What is away, and how it failed, is no client's business.
    return _problem(code, ERRORS[code] if isinstance(error, Unavailable) else error.detail)


def _problem(code: str, message: str) -> Response:
    status, retryable = STATUS.get(code, 400), code in RETRY_AFTER_SECONDS
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    headers = {}
    if retryable:
        headers["Retry-After"] = str(retry_after_seconds(code, random.random()))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="livefeed"'
    if status == 426:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade"}
    return Response(
        json.dumps(body), status_code=status, headers=headers, media_type="application/json"
    )
