"""A simulation of workers that come, share, leave and die: every update is flushed in its time.

The clock, the server and the workers' processes are simulated; what decides is the real code.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from functions.function import Work
from functions.intake import TAKE_MESSAGES_MAX, Held, Intake
from functions.schedule import Schedule
from livefeed.adapters.nats.pull import Message
from livefeed.breaker import Breaker
from livefeed.entry import Entry, EntryKey, merge
from livefeed.limits import AGED_SECONDS, ANNOUNCE_SECONDS, ANNOUNCED_SECONDS_MAX
from livefeed.order import OrderKey
from livefeed.partition import alive, served_by
from livefeed.subjects import LANES, Lane
from livefeed.topology import ACK_WAIT_SECONDS
from livefeed.window import WINDOW_SECONDS
from tests.reference_log import CHANNELS, ITEMS, Change, change, reference

STEP_SECONDS: Final = 0.05
TICK_SECONDS: Final = 0.25
HIGH_CALL_SECONDS: Final = 0.05
UNSERVED_SECONDS: Final = ANNOUNCED_SECONDS_MAX + 2 * TICK_SECONDS
"""How long the partitions of a dead worker are nobody's."""
BREAKER_SECONDS: Final = 3.0 + 1.0
"""How long after an outage nothing is tried, and the small calls that follow."""
SMALL_CALLS_MAX: Final = 10
"""After how many calls, each twice the one before, as many are taken at once as ever."""


class Other(NamedTuple):
    """A worker beside the one that is always there."""

    start: float
    seconds: float
    dies: bool
    commits: bool
    """Whether what it was doing when it died was committed, without an acknowledgement."""


class Plan(NamedTuple):
    """What happens in one example."""

    arrivals: list[tuple[float, Lane, int, Change, int]]
    """When, lane, partition, what, and how many of them."""
    others: list[Other]
    bulk_call_seconds: float
    outage: tuple[float, float] | None
    """When the log is away, and for how long."""


@dataclass(eq=False)
class Parcel:
    """A message with what is known of its fate."""

    number: int
    lane: Lane
    partition: int
    change: Change
    accepted_at: float
    deliveries: int = 0
    deaths: int = 0
    holder: Worker | None = None
    free_at: float = 0.0
    """When the server delivers it again, if nobody keeps it alive."""
    acknowledged: bool = False
    after_failures: bool = False
    """Whether the calls of its lane were small still when a worker received it."""

    def work(self) -> Work:
        reply = f"$JS.ACK.S.C.{self.deliveries}.{self.number}.1.1.0".encode()
        return Work(Message(b"s", reply, b"", b""), self, 1, 0)


@dataclass(eq=False)
class Worker:
    """One worker: real decisions, simulated calls."""

    name: str
    ends_at: float
    dies: bool
    commits: bool
    heard: dict[str, float] = field(default_factory=dict)
    partitions: frozenset[int] = frozenset()
    ticked_at: float = -math.inf
    announced_at: float = -math.inf
    leaving: bool = False
    calls: list[tuple[float, Lane, list[Held]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.intake = Intake(WINDOW_SECONDS)
        self.breaker = Breaker()
        self.schedule = Schedule(self.intake, self.breaker)


class Simulation:
    """Runs a plan to its end; `late` names every update that was not flushed in its time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = 0.0
        self.log: dict[EntryKey, Entry] = {}
        self.parcels: list[Parcel] = []
        self.late: list[str] = []
        self.shrunk: list[tuple[OrderKey, OrderKey]] = []
        self._queues: dict[tuple[Lane, int], deque[Parcel]] = defaultdict(deque)
        self._workers = [Worker("always", math.inf, dies=False, commits=False)]
        self._arrivals = deque(sorted(plan.arrivals, key=lambda arrival: arrival[0]))
        self._others = deque(sorted(plan.others))
        self._numbers = itertools.count(1)

    def run(self) -> None:
        while self._arrivals or not all(parcel.acknowledged for parcel in self.parcels):
            assert self.now < 300, "something is never handled"
            self._happen()
            for worker in list(self._workers):
                self._step(worker)
            self.now += STEP_SECONDS

    def _happen(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now:
            _, lane, partition, what, count = self._arrivals.popleft()
            for _ in range(count):
                parcel = Parcel(next(self._numbers), lane, partition, what, self.now)
                self.parcels.append(parcel)
                self._queues[lane, partition].append(parcel)
        while self._others and self._others[0].start <= self.now:
            other = self._others.popleft()
            name = f"other-{next(self._numbers)}"
            ends_at = other.start + other.seconds
            self._workers.append(Worker(name, ends_at, dies=other.dies, commits=other.commits))
        for parcel in self.parcels:
            if parcel.holder is None and parcel.deliveries and not parcel.acknowledged:
                queue = self._queues[parcel.lane, parcel.partition]
                if parcel.free_at <= self.now and parcel not in queue:
                    queue.appendleft(parcel)

    def _step(self, worker: Worker) -> None:
        for call in [call for call in worker.calls if call[0] <= self.now]:
            worker.calls.remove(call)
            self._end(worker, call[1], call[2])
        if self.now >= worker.ends_at and worker.dies:
            self._die(worker)
            return
        if self.now >= worker.ends_at and not worker.leaving:
            worker.leaving = True
            for other in self._workers:
                other.heard.pop(worker.name, None)
        if not worker.leaving:
            self._tick(worker)
            self._pull(worker)
        until = math.inf if worker.leaving and worker.breaker.state == "closed" else self.now
        while (lane := worker.schedule.next(until)) is not None:
            taken = worker.intake.lanes[lane].take(rows_max=2_000, bytes_max=1)
            seconds = HIGH_CALL_SECONDS if lane == "high" else self.plan.bulk_call_seconds
            worker.calls.append((self.now + seconds, lane, taken))
        if worker.leaving and not worker.calls and not worker.intake:
            self._workers.remove(worker)

    def _tick(self, worker: Worker) -> None:
        if self.now - worker.ticked_at < TICK_SECONDS - 1e-9:
            return
        worker.ticked_at = self.now
        if self.now - worker.announced_at >= ANNOUNCE_SECONDS - 1e-9:
            worker.announced_at = self.now
            for other in self._workers:
                other.heard[worker.name] = self.now
        worker.partitions = served_by(worker.name, alive(worker.heard, self.now))

    def _pull(self, worker: Worker) -> None:
        if worker.breaker.state != "closed":
            return
        for (lane, partition), queue in self._queues.items():
            intake = worker.intake.lanes[lane]
            while partition in worker.partitions and queue and intake.has_room:
                parcel = queue.popleft()
                parcel.deliveries += 1
                parcel.holder = worker
                parcel.after_failures = intake._take_max < TAKE_MESSAGES_MAX
                age_seconds = self.now - parcel.accepted_at
                work = parcel.work()
                intake.add(work, now=self.now, age_seconds=age_seconds)

    def _end(self, worker: Worker, lane: Lane, taken: list[Held]) -> None:
        worker.schedule.ended(lane)
        if self._is_away():
            worker.intake.lanes[lane].put_back(taken)
            worker.breaker.failed(self.now, jitter=1.0)
            return
        worker.breaker.succeeded()
        worker.intake.lanes[lane].succeeded()
        for held in taken:
            parcel = held.work.content
            assert isinstance(parcel, Parcel)
            self._check(parcel, held)
            self._commit(parcel)
            parcel.acknowledged, parcel.holder = True, None

    def _die(self, worker: Worker) -> None:
        self._workers.remove(worker)
        if worker.commits and not self._is_away():
            for held in itertools.chain.from_iterable(call[2] for call in worker.calls):
                assert isinstance(held.work.content, Parcel)
                self._commit(held.work.content)
        for parcel in self.parcels:
            if parcel.holder is worker:
                parcel.holder = None
                parcel.deaths += 1
                parcel.free_at = self.now + ACK_WAIT_SECONDS[parcel.lane]

    def _commit(self, parcel: Parcel) -> None:
        key, entry = parcel.change.key, parcel.change.entry
        held = self.log.get(key)
        self.log[key] = entry if held is None else merge(held, entry)
        if held is not None and self.log[key].order < held.order:
            self.shrunk.append((held.order, self.log[key].order))

    def _check(self, parcel: Parcel, held: Held) -> None:
        """Whether it was in hand, and on its way, no longer than its lane says."""
        lane, bulk = parcel.lane, self.plan.bulk_call_seconds
        # A call that runs and its own; those of the other lane, of which low waits for more.
        calls = {"high": 2 * HIGH_CALL_SECONDS, "medium": 4 * bulk, "low": 8 * bulk}[lane]
        away = self._away_seconds(held.received_at)
        if parcel.after_failures and not away:
            # They grow with each call and not with time: an outage is over long after its end.
            away = SMALL_CALLS_MAX * bulk
        window = min(WINDOW_SECONDS[lane], held.aged_at - held.received_at)
        in_hand = window + calls + 2 * STEP_SECONDS + away
        if self.now - held.received_at > in_hand + 1e-6:
            self.late.append(f"{lane} in hand for {self.now - held.received_at:.2f} > {in_hand}")
        window = min(WINDOW_SECONDS[lane], AGED_SECONDS)
        lives = 1 + parcel.deaths
        on_its_way = (
            parcel.deaths * ACK_WAIT_SECONDS[lane]
            + lives * (window + calls)
            + (lives + self._deaths(parcel.accepted_at)) * UNSERVED_SECONDS
            + self._away_seconds(parcel.accepted_at)
        )
        if self.now - parcel.accepted_at > on_its_way:
            self.late.append(f"{lane} after {self.now - parcel.accepted_at:.2f} > {on_its_way}")

    def _deaths(self, since: float) -> int:
        """How many workers died whose partitions may have been nobody's from a time on.

        One after the other: who is to take over may die before anybody knows that it has to.
        """
        ends = [other.start + other.seconds for other in self.plan.others if other.dies]
        return sum(since - UNSERVED_SECONDS <= end <= self.now for end in ends)

    def _is_away(self) -> bool:
        if self.plan.outage is None:
            return False
        at, seconds = self.plan.outage
        return at <= self.now < at + seconds

    def _away_seconds(self, since: float) -> float:
        """How much longer the outage lets something take that began at a time."""
        if self.plan.outage is None:
            return 0.0
        # After it calls are small at first, one, two, four messages, and the next wait for them.
        caught_up = BREAKER_SECONDS + SMALL_CALLS_MAX * self.plan.bulk_call_seconds
        at, seconds = self.plan.outage
        return seconds + caught_up if since <= at + seconds + caught_up else 0.0


# Close together, or nobody would be in anybody's way.
times = st.integers(0, 200).map(lambda tenth: tenth / 20)
changes = st.builds(
    change,
    st.sampled_from(CHANNELS[:1]),
    st.sampled_from(ITEMS),
    timestamp=st.integers(0, 5),
    salt=st.integers(0, 3),
)
arrivals = st.tuples(
    times, st.sampled_from(LANES), st.integers(0, 15), changes, st.sampled_from([1, 2, 60])
)
others = st.builds(Other, times, st.floats(0.1, 12), st.booleans(), st.booleans())
plans = st.builds(
    Plan,
    st.lists(arrivals, min_size=20, max_size=60),
    st.lists(others, max_size=4),
    st.sampled_from([0.05, 0.5, 2.0]),
    st.none() | st.tuples(times, st.floats(0.5, 8)),
)


@settings(max_examples=60)
@given(plans)
def test_every_update_is_flushed_in_its_time(plan: Plan) -> None:
    """Whoever comes, leaves or dies; and whatever the way, order keys in the log only increase."""
    simulation = Simulation(plan)
    simulation.run()
    assert simulation.late == []
    assert simulation.shrunk == []
    assert simulation.log == reference([parcel.change for parcel in simulation.parcels])
