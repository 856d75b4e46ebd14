"""What a worker holds, and which lane it handles next."""

from hypothesis import given
from hypothesis import strategies as st

from functions.function import Work
from functions.intake import Held, Intake, LaneIntake
from functions.lag import Lag
from livefeed.adapters.nats.pull import Message
from livefeed.limits import AGED_SECONDS

WINDOWS = {"high": 0.0, "medium": 5.0, "low": 15.0}


def work(
    deliveries: int = 1, rows: int = 1, queue: str = "", *, gathers: bool = True, updates: int = 1
) -> Work:
    """A message in hand, delivered so often."""
    reply = f"$JS.ACK.S.C.{deliveries}.7.7.1800000000000000000.0".encode()
    message = Message(b"s", reply, b"", b"payload")
    return Work(message, None, rows, 0, updates, queue, gathers)


def fill(intake: Intake, lane: str, count: int = 40) -> None:
    """Make a lane busy."""
    for _ in range(count):
        intake.lanes[lane].add(work(), now=0.0, age_seconds=0.0)  # type: ignore[index]


def test_high_goes_first() -> None:
    """A due high lane is handled before due others."""
    intake = Intake(WINDOWS)  # type: ignore[arg-type]
    fill(intake, "low")
    fill(intake, "medium")
    fill(intake, "high", 1)
    assert intake.due(100.0) == "high"
    intake.lanes["high"].take(rows_max=100, bytes_max=1000)
    assert intake.due(100.0) == "medium"


def test_a_busy_lane_waits_for_its_window() -> None:
    """Nothing is due before."""
    intake = Intake(WINDOWS)  # type: ignore[arg-type]
    fill(intake, "medium")
    assert intake.due(4.9) is None
    assert intake.next_due_at() == 5.0
    assert intake.due(5.0) == "medium"


def test_an_update_that_came_old_is_due_early() -> None:
    """Its lane's window began when it was accepted."""
    intake = Intake(WINDOWS)  # type: ignore[arg-type]
    for _ in range(40):
        intake.lanes["low"].add(work(), now=0.0, age_seconds=9.0)
    assert intake.next_due_at() == 6.0


def test_an_old_update_is_due_wherever_it_stands() -> None:
    """One that comes old behind fresh ones does not wait for their window."""
    intake = Intake(WINDOWS)  # type: ignore[arg-type]
    fill(intake, "low")
    intake.lanes["low"].add(work(), now=1.0, age_seconds=44.0)
    assert intake.next_due_at() == 1.0
    intake.lanes["low"].take(rows_max=1000, bytes_max=10_000)
    assert intake.next_due_at() is None


def test_one_call_gets_a_bounded_number_of_rows() -> None:
    """At least one message, and no more rows than asked."""
    intake = Intake(WINDOWS)  # type: ignore[arg-type]
    for rows in (60, 60, 60):
        intake.lanes["high"].add(work(rows=rows), now=0.0, age_seconds=0.0)
    assert [held.work.rows for held in intake.lanes["high"].take(rows_max=130, bytes_max=1000)] == [
        60,
        60,
    ]
    assert [held.work.rows for held in intake.lanes["high"].take(rows_max=10, bytes_max=1000)] == [
        60
    ]


def test_a_message_that_failed_often_is_handled_alone() -> None:
    """From the fifth delivery on it shares its fate with nobody."""
    lane = Intake(WINDOWS).lanes["high"]  # type: ignore[arg-type]
    for deliveries in (1, 5, 1, 1):
        lane.add(work(deliveries), now=0.0, age_seconds=0.0)
    assert [len(lane.take(rows_max=100, bytes_max=1000)) for _ in range(3)] == [1, 1, 2]


def test_what_is_put_back_comes_first_again() -> None:
    """A failed call leaves the order as it was."""
    lane = Intake(WINDOWS).lanes["high"]  # type: ignore[arg-type]
    for rows in (1, 2, 3):
        lane.add(work(rows=rows), now=0.0, age_seconds=0.0)
    taken = lane.take(rows_max=3, bytes_max=1000)
    lane.put_back(taken)
    assert [held.work.rows for held in lane] == [1, 2, 3]
    assert [held.work.rows for held in lane.take(rows_max=100, bytes_max=1000)] == [1]


def test_a_full_lane_asks_for_no_more() -> None:
    """The bound counts messages and bytes."""
    lane = Intake(WINDOWS).lanes["high"]  # type: ignore[arg-type]
    assert lane.has_room
    for _ in range(5000):
        lane.add(work(), now=0.0, age_seconds=0.0)
    assert not lane.has_room


def test_what_failed_together_is_tried_in_parts() -> None:
    """Half as many after each failure, at least one; twice as many after each success."""
    lane = Intake(WINDOWS).lanes["high"]  # type: ignore[arg-type]
    for _ in range(8):
        lane.add(work(), now=0.0, age_seconds=0.0)

    def take() -> list[Held]:
        return lane.take(rows_max=100, bytes_max=1000)

    sizes = []
    for _ in range(5):
        taken = take()
        sizes.append(len(taken))
        lane.put_back(taken)
    for _ in range(3):
        lane.succeeded()
        sizes.append(len(take()))
    assert sizes == [8, 4, 2, 1, 1, 2, 4, 2]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "take", "put back"]), st.integers(0, 30)), max_size=40
    )
)
def test_the_oldest_decides_wherever_it_stands(steps: list[tuple[str, int]]) -> None:
    """A lane is due when any of what it holds has waited enough, in whatever order they came."""
    lane = LaneIntake(15.0)
    taken: list[Held] = []
    for now, (step, number) in enumerate(steps):
        if step == "add":
            one = work(number, queue=str(number % 3), gathers=number % 3 < 2)
            lane.add(one, now=float(now), age_seconds=float(number))
        elif step == "take":
            lane.put_back(taken)
            taken = lane.take(rows_max=number, bytes_max=10**9)
        else:
            lane.put_back(taken)
            taken = []
        held = list(lane)
        due_at = lane.due_at()
        assert (due_at is None) == (not held)
        assert due_at is None or due_at <= min(one.aged_at for one in held)
        for queue in lane._queues.values():
            assert queue.aged_at == min(one.aged_at for one in queue.held)


def test_a_call_gets_what_belongs_together() -> None:
    """Where not all fits, the queue that is due first comes whole, and then the next."""
    lane = LaneIntake(15.0)
    for second, queue in enumerate("abcabcabc"):
        lane.add(work(rows=20, queue=queue, updates=32), now=float(second), age_seconds=0.0)
    calls = [lane.take(rows_max=100, bytes_max=1000) for _ in range(3)]
    assert ["".join(held.work.queue for held in call) for call in calls] == ["aaabb", "cccb", ""]
    assert [held.received_at for held in calls[0]] == [0.0, 3.0, 6.0, 1.0, 4.0]
    assert len(lane) == 0


def test_what_may_not_wait_comes_alone() -> None:
    """It is due at once, and what gathers goes on gathering."""
    lane = LaneIntake(5.0)
    for _ in range(40):
        lane.add(work(), now=0.0, age_seconds=0.0)
    lane.add(work(queue="urgent", gathers=False), now=1.0, age_seconds=0.0)
    assert lane.due_at() == 1.0
    assert [held.work.queue for held in lane.take(rows_max=100, bytes_max=1000)] == ["urgent"]
    assert lane.due_at() == 5.0
    assert len(lane) == 40


def test_a_full_lane_is_due() -> None:
    """What waits for more where no more is asked for would only be late."""
    lane = LaneIntake(15.0)
    for _ in range(5_000):
        assert lane.due_at() in {None, 0.005, 15.0}
        lane.add(work(), now=0.0, age_seconds=0.0)
    assert lane.due_at() == 0.0


def test_a_widened_lane_keeps_nothing_beyond_its_age() -> None:
    """Twice the window of low is more than an update may wait: age decides."""
    intake = Intake(WINDOWS)  # type: ignore[arg-type]
    intake.lanes["low"].widen(2.0)
    fill(intake, "low")
    assert intake.next_due_at() == AGED_SECONDS


def test_lag_is_the_time_in_the_stream_and_said_once() -> None:
    """The longest of what was handled and of what waits, since the last time that it was said."""
    stored_at = 1_800_000_000_000_000
    held = Held(work(), 0.0, 0.0, 0.0)
    lag = Lag()
    assert lag.say([], stored_at) == 0.0
    lag.handled([held, held], stored_at + 3_000_000)
    lag.handled([held], stored_at + 2_000_000)
    assert lag.say([held], stored_at + 1_000_000) == 3.0
    assert lag.say([held], stored_at + 1_000_000) == 1.0
    assert lag.say([], stored_at + 9_000_000) == 0.0
