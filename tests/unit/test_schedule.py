"""What a worker does next."""

from functions.intake import Intake
from functions.schedule import Schedule
from livefeed.breaker import Breaker
from livefeed.subjects import LANES, Lane
from tests.unit.test_intake import work

NO_WINDOWS: dict[Lane, float] = dict.fromkeys(LANES, 0.0)


def held(*lanes: Lane) -> Intake:
    """An intake with a message in each of these lanes, all of them due."""
    intake = Intake(NO_WINDOWS)
    for lane in lanes:
        intake.lanes[lane].add(work(), now=0.0, age_seconds=0.0)
    return intake


def take(intake: Intake, lane: Lane | None) -> Lane | None:
    """Take what is in hand of a lane, as a worker does."""
    if lane is not None:
        intake.lanes[lane].take(rows_max=9, bytes_max=999)
    return lane


def test_high_is_handled_beside_one_other_lane() -> None:
    """While medium is handled, low waits and high does not."""
    intake = held("medium", "low")
    schedule = Schedule(intake, Breaker())
    assert take(intake, schedule.next(1.0)) == "medium"
    assert schedule.next(1.0) is None
    intake.lanes["high"].add(work(), now=1.0, age_seconds=0.0)
    assert take(intake, schedule.next(1.0)) == "high"
    intake.lanes["high"].add(work(), now=1.0, age_seconds=0.0)
    assert schedule.next(1.0) is None, "one call of high at a time"
    schedule.ended("medium")
    assert take(intake, schedule.next(1.0)) == "low"
    schedule.ended("high")
    assert schedule.next(1.0) == "high"


def test_a_lane_whose_place_is_taken_wakes_nobody() -> None:
    """The end of the call does; until then only what has a place is looked at."""
    intake = held("medium", "low")
    schedule = Schedule(intake, Breaker())
    take(intake, schedule.next(1.0))
    assert schedule.look_at() is None
    intake.lanes["high"].add(work(), now=7.0, age_seconds=0.0)
    assert schedule.look_at() == 7.0


def test_an_open_breaker_lets_one_probe_through() -> None:
    """It is high's if high has something; nobody is woken before its time, or while it runs."""
    intake, breaker = held("high", "low"), Breaker()
    schedule = Schedule(intake, breaker)
    for _ in range(3):
        breaker.failed(10.0, jitter=0.0)
    assert schedule.next(10.0) is None
    assert schedule.look_at() == breaker.retry_at() > 10.0
    assert schedule.next(breaker.retry_at()) == "high"
    assert schedule.next(breaker.retry_at()) is None
    assert schedule.look_at() is None
    breaker.succeeded()
    assert schedule.next(breaker.retry_at()) == "low"
