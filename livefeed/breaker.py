"""The circuit breaker: whether to call a dependency that has been failing.

Pure: the clock and the jitter are arguments. Closed: calls go through. Open: none until a time that
grows with each failed probe. Half open: exactly one probe. A cancelled call counts as nothing, and
neither does one that ends when the breaker has changed since it began: whatever was under way when
it opened is no probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a breaker opens and for how long."""

    failures_to_open: int = 3
    """Failures in a row that open it."""
    open_seconds_min: float = 0.25
    open_seconds_max: float = 2.0
    """The wait doubles from the one to the other with each failed probe."""
    probe_seconds_max: float = 30.0
    """A probe that has not ended by then is given up, and another one goes."""


PAGES_POLICY: Final = BreakerPolicy(open_seconds_max=1.0)
"""Of what pages are made of: new within 5 s of its return, with a second for which a failure is
remembered, the time that a probe takes, and a page that is given once more while it is made."""


class Call:
    """A call that a breaker let through; what came of it is said once.

    For whoever makes several at a time.

    Args:
        breaker: Which one.
    """

    __slots__ = ("_breaker", "_turn")

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._turn = breaker.turn

    def succeeded(self) -> None:
        """It came back."""
        if self._counts:
            self._breaker.succeeded()

    def failed(self, now: float, *, jitter: float) -> None:
        """It failed or timed out; the arguments are those of the breaker's."""
        if self._counts:
            self._breaker.failed(now, jitter=jitter)

    def abandoned(self, now: float) -> None:
        """It was cancelled."""
        if self._counts:
            self._breaker.abandoned(now)

    @property
    def _counts(self) -> bool:
        return self._breaker.turn == self._turn


class Breaker:
    """One dependency's breaker; times are seconds of one monotonic clock."""

    __slots__ = ("_failures", "_policy", "_probe_ends_at", "_probes", "_retry_at", "state", "turn")

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self.state: BreakerState = "closed"
        self.turn = 0
        """How often it has changed."""
        self._failures = 0
        self._probes = 0
        self._retry_at = 0.0
        self._probe_ends_at = 0.0

    def begin(self, now: float) -> Call | None:
        """A call, or None while there may be none."""
        return Call(self) if self.allows(now) else None

    def allows(self, now: float) -> bool:
        """Whether to call; in half open the first to ask is the probe.

        For whoever makes one call at a time, and says to the breaker what came of it.
        """
        if self.state == "closed":
            return True
        if now < (self._retry_at if self.state == "open" else self._probe_ends_at):
            return False
        self._change("half_open")
        self._probe_ends_at = now + self._policy.probe_seconds_max
        return True

    def retry_at(self) -> float:
        """When an open breaker lets a probe through."""
        return self._retry_at

    def succeeded(self) -> None:
        """A call came back: closed, all is forgotten."""
        if self.state != "closed":
            self._change("closed")
        self._failures = self._probes = 0

    def failed(self, now: float, *, jitter: float) -> None:
        """A call failed or timed out.

        Args:
            now: The clock.
            jitter: 0..1, spreads the probes of many processes over half the wait.
        """
        if self.state == "open":
            # Not again for each call that began before it opened: the wait would double each time.
            return
        self._failures += 1
        if self.state == "closed" and self._failures < self._policy.failures_to_open:
            return
        doubled = self._policy.open_seconds_min * 2 ** min(self._probes, 16)
        wait = min(doubled, self._policy.open_seconds_max) * (1.0 + jitter / 2)
        self._probes += 1
        self._retry_at = now + wait
        self._change("open")

    def abandoned(self, now: float) -> None:
        """A call was cancelled: says nothing about the dependency; another probe may go."""
        if self.state == "half_open":
            self._retry_at = now
            self._change("open")

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self.turn += 1


class Told(Protocol):
    """What is told how a call went: a breaker, or a call that it let through."""

    def succeeded(self) -> None: ...
    def failed(self, now: float, *, jitter: float) -> None: ...
    def abandoned(self, now: float) -> None: ...


class Attempt:
    """A call that its breaker has let through, as a context: what it raises is what came of it.

    Nothing is swallowed. `allows` was asked before: whoever may not call has an answer of its own.

    Args:
        breaker: Of what is called; or the `Call`, where several are made at a time.
        clock: Its monotonic seconds.
        jitter: 0..1, another one each time.
        failures: Errors that say that the dependency failed. All others, and being cancelled, say
            nothing about it.
    """

    __slots__ = ("_breaker", "_clock", "_failures", "_jitter")

    def __init__(
        self,
        breaker: Told,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        failures: tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        self._breaker = breaker
        self._clock = clock
        self._jitter = jitter
        self._failures = failures

    def __enter__(self) -> None:
        """Begin to call."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Tell the breaker how it went."""
        if kind is None:
            self._breaker.succeeded()
        elif issubclass(kind, self._failures):
            self._breaker.failed(self._clock(), jitter=self._jitter())
        else:
            self._breaker.abandoned(self._clock())
