"""The circuit breaker as a state machine."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from livefeed.breaker import Attempt, Breaker, BreakerPolicy, BreakerState, Call
from livefeed.errors import Refused, Unavailable

POLICY = BreakerPolicy(
    failures_to_open=3, open_seconds_min=1.0, open_seconds_max=4.0, probe_seconds_max=1_000.0
)


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


def test_what_was_under_way_when_it_opened_is_no_probe() -> None:
    """Its end, whatever it is, lets no second probe go and takes the first one's word from it."""
    for end in ("fails", "is cancelled", "succeeds"):
        breaker = Breaker(POLICY)
        early = breaker.begin(0.0)
        assert early is not None
        for _ in range(3):
            breaker.failed(0.0, jitter=0.0)
        probe = breaker.begin(1.0)
        assert probe is not None
        if end == "fails":
            early.failed(1.1, jitter=0.0)
        elif end == "is cancelled":
            early.abandoned(1.1)
        else:
            early.succeeded()
        assert breaker.state == "half_open"
        assert breaker.begin(2.0) is None, end
        probe.succeeded()
        assert breaker.state == "closed"


def test_calls_that_fail_after_it_opened_do_not_make_the_wait_longer() -> None:
    """A hundred that began together are one failure too many, not ninety-seven probes."""
    breaker = Breaker(POLICY)
    calls = [breaker.begin(0.0) for _ in range(100)]
    for call in calls:
        assert call is not None
        call.failed(0.0, jitter=0.0)
    assert breaker.retry_at() == POLICY.open_seconds_min


def test_a_probe_that_never_ends_is_given_up() -> None:
    """Another one goes; when the first one ends after all, nobody listens."""
    breaker = opened()
    lost = breaker.begin(1.0)
    assert lost is not None
    assert breaker.begin(1.0 + POLICY.probe_seconds_max - 0.1) is None
    probe = breaker.begin(1.0 + POLICY.probe_seconds_max)
    assert probe is not None
    lost.failed(50.0, jitter=0.0)
    assert breaker.state == "half_open"
    assert breaker.begin(50.0) is None
    probe.succeeded()
    assert breaker.state == "closed"


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
    """Any number of calls that overlap in any way, with at most one probe at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.calls: list[Call] = []
        self.probe: Call | None = None

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        """The clock goes on."""
        self.now += seconds

    @rule()
    def begin(self) -> None:
        """Somebody asks, and if allowed calls."""
        was_closed = self.breaker.state == "closed"
        call = self.breaker.begin(self.now)
        if call is None:
            assert not was_closed
            return
        self.calls.append(call)
        if not was_closed:
            assert self.probe is None, "two probes at a time"
            self.probe = call

    @rule(number=st.integers(0, 9), outcome=st.sampled_from(["success", "failure", "cancel"]))
    def end(self, number: int, outcome: str) -> None:
        """One of those that are under way comes to its end."""
        if not self.calls:
            return
        call, before = self.calls.pop(number % len(self.calls)), self.breaker.state
        if outcome == "success":
            call.succeeded()
        elif outcome == "failure":
            call.failed(self.now, jitter=0.5)
        else:
            call.abandoned(self.now)
        if call is self.probe:
            self.probe = None
            assert self.breaker.state == ("closed" if outcome == "success" else "open")
        elif before != "closed":
            assert self.breaker.state == before

    @invariant()
    def an_open_breaker_tries_again_soon(self) -> None:
        """It never stays open for longer than its bound with jitter."""
        if self.breaker.state == "open":
            assert self.breaker.retry_at() - self.now <= POLICY.open_seconds_max * 1.5

    @invariant()
    def half_open_is_somebodys_probe(self) -> None:
        """Nothing waits for a probe that nobody makes."""
        assert (self.breaker.state == "half_open") == (self.probe is not None)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40)
