"""The benchmark's verifier: a delivery that is lost, doubled, foreign or inexact fails a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.measure import LatencyRecorder, growth
from benchmarks.report import Goal, Report, Table, merged
from benchmarks.scenario import Options, WrongSize
from benchmarks.scenarios.latency import Sizes
from benchmarks.traffic import Traffic
from benchmarks.verify import FAULTS, Inbox, decode_frame

ME, ALL = "me/home", "all/home"
HEADS = {ME: 3, ALL: 0}
Frames = list[dict[str, Any]]


def update(number: int, *, channel: str = ME, user: str = "alice", seq: int = 0) -> dict[str, Any]:
    content = {"id": f"item-{number}", "number": number, "user": user, "due": 1, "recorded": True}
    return {"channel": channel, "seq": seq or number, "updateId": f"u{number}", "content": content}


def frame(*updates: dict[str, Any], cursor: int, replay: bool = False) -> dict[str, Any]:
    head = {"type": "feed_updates", "batchId": "b", "floor": {ME: 0}, "more": False}
    return {**head, "updates": list(updates), "cursor": {ME: cursor}, "replay": replay}


def exact() -> Frames:
    """Updates 1 to 3 of alice: one from the log, two live."""
    return [
        {"type": "connection_established", "epoch": "e.0"},
        frame(update(1), cursor=1, replay=True),
        {"type": "caught_up", "feeds": ["home"]},
        frame(update(2), cursor=2),
        frame(update(3), cursor=3),
    ]


def faults(frames: Frames, *, unknown: frozenset[int] = frozenset()) -> dict[str, int]:
    inbox = Inbox("alice", "home")
    for one in frames:
        inbox.take(decode_frame(json.dumps(one)))
    return inbox.judge({1, 2, 3} - unknown, unknown=unknown, heads=HEADS)


def found(**counts: int) -> dict[str, int]:
    return dict.fromkeys(FAULTS, 0) | counts


def test_an_exact_run_has_no_faults() -> None:
    assert faults(exact()) == found()


def test_what_was_delivered_is_returned_once_for_its_latency() -> None:
    inbox = Inbox("alice", "home")
    frames = [decode_frame(json.dumps(one)) for one in [*exact(), *exact()]]
    assert [content.number for one in frames for content in inbox.take(one)] == [1, 2, 3]


def drop_the_last(frames: Frames) -> None:
    frames.pop()


def drop_one_in_the_middle(frames: Frames) -> None:
    frames[3]["updates"].clear()


def double_a_frame(frames: Frames) -> None:
    frames.insert(3, frames[3])


def replay_what_was_live(frames: Frames) -> None:
    frames.append(frame(update(3), cursor=3, replay=True))


def show_anothers_update(frames: Frames) -> None:
    frames[3]["updates"].append(update(7, user="bob"))


def show_anothers_channel(frames: Frames) -> None:
    frames[3]["updates"].append(update(7, channel=ALL))


def show_what_was_never_published(frames: Frames) -> None:
    frames[4]["updates"].insert(0, update(99, seq=3))
    frames[4]["updates"][1]["seq"] = 4
    frames[4]["cursor"][ME] = 3


def swap_two(frames: Frames) -> None:
    frames[3], frames[4] = frames[4], frames[3]


def forget_the_cursor(frames: Frames) -> None:
    frames[4]["cursor"] = {}


def reset_for_nothing(frames: Frames) -> None:
    frames.append({"type": "reset", "feeds": ["home"], "reason": "position_ahead", "epoch": "e.0"})


@pytest.mark.parametrize(
    ("injure", "wanted"),
    [
        (drop_the_last, {"lost": 1, "inexact": 1}),
        (drop_one_in_the_middle, {"lost": 1}),
        (double_a_frame, {"doubled": 1}),
        (replay_what_was_live, {"doubled": 1}),
        (show_anothers_update, {"foreign": 1}),
        (show_anothers_channel, {"foreign": 1}),
        (show_what_was_never_published, {"foreign": 1, "inexact": 1}),
        (swap_two, {"inexact": 3}),
        (forget_the_cursor, {"inexact": 2}),
        (reset_for_nothing, {"inexact": 1}),
    ],
)
def test_a_broken_delivery_is_counted_and_fails_the_run(
    injure: Callable[[Frames], None], wanted: dict[str, int]
) -> None:
    frames = exact()
    injure(frames)
    counted = faults(frames)
    assert counted == found(**wanted)
    report = Report("any", faults=merged([found(), counted]))
    assert not report.ok
    assert report.public()["ok"] is False


@pytest.mark.parametrize("arrived", [True, False])
def test_a_publish_without_an_answer_may_arrive_or_not(arrived: bool) -> None:
    frames = exact()
    if not arrived:
        frames[3]["updates"].clear()
    assert faults(frames, unknown=frozenset({2})) == found()


def test_a_missed_goal_is_shown_and_alone_does_not_fail_the_run() -> None:
    report = Report("any", faults=found())
    report.add("p99_ms", 120.5, "ms", Goal("≤", 100))
    public = report.public()
    assert public["ok"] is True
    assert public["figures"]["p99_ms"] == {
        "value": 120.5,
        "unit": "ms",
        "goal": "≤ 100",
        "met": False,
    }
    assert "MISSED" in report.table()


def test_a_run_that_failed_is_not_ok() -> None:
    assert not Report("any", failure="it ended").ok


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("≤", 2), 2, True),
        (Goal("≤", 2), 2.1, False),
        (Goal("≥", 4), 4, True),
        (Goal("≥", 4), 3.9, False),
        (Goal("=", 0), 0, True),
        (Goal("=", 0), 1, False),
    ],
)
def test_a_goal_is_met_on_its_side_of_the_limit(goal: Goal, value: float, met: bool) -> None:
    assert goal.is_met(value) is met


def test_sizes_are_replaced_by_name_and_nothing_else_is_taken() -> None:
    given = {"connections": "12", "seconds": "1.5"}
    sizes = Options(sizes=given).sized(Sizes())
    assert (sizes.connections, sizes.seconds, sizes.per_second) == (12, 1.5, Sizes().per_second)
    for wrong in ({"connection": "12"}, {"connections": "many"}):
        with pytest.raises(WrongSize):
            Options(sizes=wrong).sized(Sizes())


def test_what_is_no_size_may_be_a_setting_of_the_servers() -> None:
    options = Options(sizes={"window_low_seconds": "1", "worker_life_seconds": "7"})
    assert options.settings(Sizes()) == {"window_low_seconds": "1"}
    assert options.sized(Sizes()).worker_life_seconds == 7


def test_both_sides_of_a_load_know_whose_an_update_is() -> None:
    traffic = Traffic(seed=3, users=10)
    for number in range(50):
        published = json.loads(traffic.update(number, due=1, recorded=True))
        assert published["userId"] == traffic.name(traffic.user(number))
    assert len({traffic.user(number) for number in range(500)}) == 10


def test_an_update_for_many_is_for_one_group_and_everybody_in_it_expects_it() -> None:
    traffic = Traffic(seed=3, users=30, audience=10)
    firsts = set()
    for number in range(100):
        published = json.loads(traffic.update(number, due=1, recorded=True))
        users = published["audience"]["users"]
        firsts.add(users[0])
        assert len(users) == 10
        members = [user for user in range(30) if traffic.name(user) in users]
        assert {traffic.owner_for(user) for user in members} == {traffic.owner(number)}
        others = {traffic.owner_for(user) for user in range(30)} - {traffic.owner(number)}
        assert len(others) == 2
        assert published["content"]["user"] == traffic.owner(number)
    assert firsts == {traffic.name(user) for user in (0, 10, 20)}
    inbox = Inbox(traffic.name(17), "home", traffic.owner_for(17))
    mine, foreign = (
        decode_frame(json.dumps(frame(update(number, user=traffic.name(user)), cursor=number)))
        for number, user in ((1, 10), (2, 20))
    )
    assert len(inbox.take(mine)) == 1
    assert inbox.take(foreign) == []
    assert inbox.faults["foreign"] == 1


def test_each_priority_is_as_often_as_it_stands_in_the_mix_for_every_user() -> None:
    traffic = Traffic(seed=3, users=2, priorities=("high", "medium", "low", "low"))
    counts = Counter((traffic.user(n), traffic.priority(n)) for n in range(8_000))
    for user in range(2):
        assert counts[user, "high"] == pytest.approx(1_000, rel=0.15)
        assert counts[user, "low"] == pytest.approx(2_000, rel=0.15)
    payload = traffic.update(5, due=1, recorded=True)
    lane = decode_frame(b'{"type":"x","updates":[{"channel":"c","seq":1,%s]}' % payload[1:])
    assert lane.updates[0].content.lane == traffic.priority(5)


def test_growth_is_what_remains_of_samples_that_go_up_and_down() -> None:
    saw = [100.0, 140.0, 120.0] * 10
    assert growth(saw) == 0
    assert growth([0, 10, 30, *saw]) == 0, "warm-up"
    assert growth([*saw[:20], 900.0, *saw[20:]]) == 0, "one peak"
    assert growth([float(second) for second in range(60)]) == 30
    assert growth([1.0] * 5) is None


def test_the_share_within_a_time_never_says_too_much() -> None:
    recorder = LatencyRecorder()
    for milliseconds in range(1, 101):
        recorder.record(milliseconds / 1e3)
    assert recorder.share_within(0.1) == 1.0
    assert 0.44 <= recorder.share_within(0.05) <= 0.5
    assert recorder.share_within(0.0005) == 0.0


def test_tables_are_shown_below_the_figures_and_are_in_the_json() -> None:
    report = Report("any", faults=found())
    assert set(report.public()) == {"scenario", "ok", "computer", "figures"}
    table = Table("side by side", ("peer", "CPU µs", "messages"))
    table.add("one", "12.5", "exact")
    table.add("another", "not installed")
    report.tables.append(table)
    lines = report.table().splitlines()
    place = lines.index("side by side")
    assert [line.split() for line in lines[place + 1 : place + 4]] == [
        ["peer", "CPU", "µs", "messages"],
        ["one", "12.5", "exact"],
        ["another", "not", "installed"],
    ]
    (public,) = report.public()["tables"]
    assert public["title"] == "side by side"
    assert public["rows"][1] == {"peer": "another", "CPU µs": "not installed", "messages": ""}
