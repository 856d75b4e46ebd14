"""How the doors say no over HTTP: a status, and the error as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from livefeed.errors import Refused, Unavailable
from livefeed.protocol import ERRORS

STATUS: Final[Mapping[str, int]] = {
    "token_invalid": 401,
    "token_expired": 401,
    "feed_forbidden": 403,
    "origin_forbidden": 403,
    "feed_invalid": 400,
    "parameter_invalid": 400,
}


def refusal(error: Refused | Unavailable) -> Response:
    """The answer to a request that cannot be served, for ever or now."""
    if isinstance(error, Unavailable):
        return _problem(503, "unavailable", ERRORS["unavailable"], retryable=True)
    status = STATUS.get(error.code, 400)
    return _problem(status, error.code, error.detail, retryable=False)


def _problem(status: int, code: str, message: str, *, retryable: bool) -> Response:
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    headers = {"Retry-After": "1"} if retryable else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="livefeed"'
    return Response(
        json.dumps(body), status_code=status, headers=headers, media_type="application/json"
    )
