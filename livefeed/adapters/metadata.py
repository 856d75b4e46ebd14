"""The instance metadata service, version 2: what the cloud tells a node of itself and its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from livefeed.adapters import http
from livefeed.errors import Unavailable

TOKEN_SECONDS: Final = 21_600
"""How long a token is asked for; it is renewed when half of that is over, or it is refused."""
SECONDS_MAX: Final = 1.5
"""An answer comes from the node's own host: one that takes longer will not come."""
TOKEN_HEADER: Final = "X-aws-ec2-metadata-token"  # noqa: S105 - a name
HOP_LIMIT: Final = "; in a container the node's hop limit must be 2, or its network the host's"


class _SpotAction(msgspec.Struct):
    time: datetime
    action: str = ""


class Metadata:
    """Asks one metadata service.

    Args:
        url: Where it is.
        clock: Monotonic seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url: Final = url.rstrip("/")
        self._clock: Final = clock
        self._token: str | None = None
        self._renew_at = 0.0

    async def instance_id(self) -> str:
        """The id of this node; raises Unavailable."""
        return await self._told("instance-id")

    async def region(self) -> str:
        """The region that this node is in; raises Unavailable."""
        return await self._told("placement/region")

    async def terminating(self) -> bool:
        """Whether its group ends this node; raises Unavailable."""
        state = await self._item("autoscaling/target-lifecycle-state")
        # `Warmed:Terminated` is of the warm pool.
        return state is not None and state.strip().rpartition(":")[2] == "Terminated"

    async def spot_taken_at(self) -> float | None:
        """When this spot node is taken back, in seconds since 1970; raises Unavailable."""
        text = await self._item("spot/instance-action")
        if text is None:
            return None
        try:
            at = msgspec.json.decode(text, type=_SpotAction).time
        except msgspec.DecodeError as error:
            raise Unavailable("metadata", f"spot/instance-action is unreadable: {error}") from error
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

    async def rebalance(self) -> bool:
        """Whether this spot node is at a higher risk to be taken back; raises Unavailable."""
        return await self._item("events/recommendations/rebalance") is not None

    async def _told(self, name: str) -> str:
        text = await self._item(name)
        if text is None:
            raise Unavailable("metadata", f"it has no {name}")
        return text.strip()

    async def _item(self, name: str) -> str | None:
        """One item; None when it is not there. A token that is refused is renewed once."""
        answer = await self._get(name, await self._valid_token())
        if answer.status == 401:
            self._token = None
            answer = await self._get(name, await self._valid_token())
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Unavailable("metadata", f"{name} is answered with status {answer.status}")
        return answer.body.decode(errors="replace")

    async def _get(self, name: str, token: str) -> http.Answer:
        url = f"{self._url}/latest/meta-data/{name}"
        return await http.get(url, seconds_max=SECONDS_MAX, headers={TOKEN_HEADER: token})

    async def _valid_token(self) -> str:
        if self._token is not None and self._clock() < self._renew_at:
            return self._token
        try:
            answer = await http.request(
                "PUT",
                f"{self._url}/latest/api/token",
                seconds_max=SECONDS_MAX,
                headers={f"{TOKEN_HEADER}-ttl-seconds": str(TOKEN_SECONDS), "Content-Length": "0"},
            )
        except Unavailable as error:
            # The answer to this request alone travels no further than the hop limit.
            raise Unavailable("metadata", f"no token: {error.detail}{HOP_LIMIT}") from error
        if answer.status != 200:
            raise Unavailable("metadata", f"a token is refused with status {answer.status}")
        self._token = answer.body.decode(errors="replace").strip()
        self._renew_at = self._clock() + TOKEN_SECONDS / 2
        return self._token
