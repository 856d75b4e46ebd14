"""How many clients a gateway sends to the others because it has far more than its share.

Pure. A balancer spreads those who come; those who are there it leaves where they are, also when a
gateway next door has just started and has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedPolicy:
    """When a gateway sheds, how far down, and how fast."""

    begin_share: float = 0.25
    """It begins when it has this much more than the mean; 0 is never."""
    end_share: float = 0.05
    """It ends when it has only this much more: balancers are not exact either."""
    connections_min: int = 100
    """It sheds nothing while it has no more than this."""
    share_a_second: float = 0.02
    """Of its connections, at most in one second; at least one."""


@dataclass(frozen=True, slots=True)
class Shed:
    """What to do in this second."""

    count: int
    """Clients to send away."""
    going_on: bool
    """Whether it sheds until it is near the mean, so begins no anew."""


NOTHING = Shed(0, going_on=False)


def shed(own: int, others: Sequence[int], policy: ShedPolicy, *, going_on: bool) -> Shed:
    """How many clients to send away now.

    Args:
        own: Connections of this gateway.
        others: Those of each other gateway that takes clients.
        policy: The thresholds.
        going_on: What the last second's answer said.
    """
    if not others or own <= policy.connections_min or policy.begin_share == 0:
        return NOTHING
    mean = (own + sum(others)) / (1 + len(others))
    share = min(policy.end_share, policy.begin_share) if going_on else policy.begin_share
    if own <= mean * (1 + share):
        return NOTHING
    target = max(policy.connections_min, math.ceil(mean * (1 + policy.end_share)))
    most = max(1, int(own * policy.share_a_second))
    count = max(0, min(own - target, most))
    return Shed(count, going_on=count > 0)
