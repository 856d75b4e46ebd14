"""The circuit breaker as a state machine."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from livefeed.breaker import Attempt, Breaker, BreakerPolicy, BreakerState
from livefeed.errors import Refused, Unavailable

POLICY = BreakerPolicy(failures_to_open=3, open_seconds_min=1.0, open_seconds_max=4.0)


def opened() -> Breaker:
    """A breaker that has just opened, at time 0."""
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0, jitter=0.0)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """A success between failures starts the count anew."""
    breaker = Breaker(POLICY)
    breaker.failed(0.0, jitter=0.0)
    breaker.failed(0.0, jitter=0.0)
    breaker.succeeded()
    breaker.failed(0.0, jitter=0.0)
    breaker.failed(0.0, jitter=0.0)
    assert breaker.state == "closed"
    breaker.failed(0.0, jitter=0.0)
    assert breaker.state == "open"


def test_half_open_lets_exactly_one_probe_through() -> None:
    """Of fifty that ask when the wait is over, one may call."""
    breaker = opened()
    assert not breaker.allows(0.9)
    assert sum(breaker.allows(1.0) for _ in range(50)) == 1


def test_waits_grow_and_are_bounded() -> None:
    """Each failed probe doubles the wait, up to the bound; a success forgets it."""
    breaker, now, waits = opened(), 0.0, []
    for _ in range(5):
        waits.append(breaker.retry_at() - now)
        now = breaker.retry_at()
        assert breaker.allows(now)
        breaker.failed(now, jitter=0.0)
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]
    breaker.allows(breaker.retry_at())
    breaker.succeeded()
    assert breaker.state == "closed"


def test_a_cancelled_probe_lets_another_go() -> None:
    """A caller that hangs up says nothing about the dependency."""
    breaker = opened()
    assert breaker.allows(1.0)
    breaker.abandoned(1.0)
    assert breaker.allows(1.0)


def test_calls_that_began_before_it_opened_do_not_prolong_the_wait() -> None:
    """Fifty that hang together fail together: that is one fault, not fifty probes."""
    breaker = opened()
    for _ in range(50):
        breaker.failed(0.5, jitter=0.0)
    assert breaker.retry_at() == 1.0
    assert breaker.allows(1.0)
    breaker.failed(1.0, jitter=0.0)
    assert breaker.retry_at() == 3.0, "twice as long after the first failed probe"


def test_an_attempt_tells_of_success() -> None:
    """A probe that comes back closes the breaker."""
    breaker = opened()
    assert breaker.allows(2.0)
    with Attempt(breaker, lambda: 2.0, lambda: 0.5):
        assert breaker.state == "half_open"
    assert breaker.state == "closed"


@pytest.mark.parametrize(
    ("error", "failures", "state", "retry_at"),
    [
        (Unavailable("nats", "away"), (), "open", 2.0 + 2.0 * 1.25),
        (TimeoutError(), (Unavailable, TimeoutError), "open", 2.0 + 2.0 * 1.25),
        (Refused("code", "wrong for ever"), (Unavailable,), "open", 2.0),
        (asyncio.CancelledError(), (), "open", 2.0),
        (KeyboardInterrupt(), (), "open", 2.0),
    ],
)
def test_an_attempt_tells_what_an_error_means(
    error: BaseException,
    failures: tuple[type[Exception], ...],
    state: BreakerState,
    retry_at: float,
) -> None:
    """A failure makes the next probe wait for longer; what says nothing lets another go at once.
    Either is raised on."""
    breaker = opened()
    assert breaker.allows(2.0)
    attempt = Attempt(breaker, lambda: 2.0, lambda: 0.5, failures or (Exception,))
    with pytest.raises(type(error)) as raised, attempt:
        raise error
    assert raised.value is error
    assert (breaker.state, breaker.retry_at()) == (state, retry_at)


class Machine(RuleBasedStateMachine):
    """Any sequence of calls, with at most one probe at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.probing = False

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        """The clock goes on."""
        self.now += seconds

    @rule(outcome=st.sampled_from(["success", "failure", "cancel", "pending"]))
    def call(self, outcome: str) -> None:
        """Somebody asks, and if allowed calls."""
        was_closed = self.breaker.state == "closed"
        if not self.breaker.allows(self.now):
            return
        assert was_closed or not self.probing
        self.probing = not was_closed
        if outcome == "success":
            self.breaker.succeeded()
        elif outcome == "failure":
            self.breaker.failed(self.now, jitter=0.5)
        elif outcome == "cancel":
            self.breaker.abandoned(self.now)
        self.probing = self.breaker.state == "half_open"

    @invariant()
    def an_open_breaker_tries_again_soon(self) -> None:
        """It never stays open for longer than its bound with jitter."""
        if self.breaker.state == "open":
            assert self.breaker.retry_at() - self.now <= POLICY.open_seconds_max * 1.5


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=30)
