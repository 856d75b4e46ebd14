"""The charts that scenarios draw: what took how long over the time of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.chart import Chart, Line, Panel, spread
from benchmarks.load import Outcome
from benchmarks.measure import LatencyRecorder

POINTS_MAX: Final = 300
"""Of a line; more would not be seen."""
PARTS: Final = ((50.0, "p50"), (99.0, "p99"), (100.0, "slowest"))
BAND: Final = 0.2
"""By how much what should be constant may differ."""
CPU_FIGURE: Final = "cpu_us_per_message_"
FLOOR_FIGURE: Final = "floor_cpu_us_per_message_"
RSS_FIGURE: Final = "rss_kib_per_connection_"
"""What the names of figures begin with that end with a number of connections."""

Timeline = Sequence[tuple[float, LatencyRecorder]]
"""The seconds at which a period began, and the latencies of what was due in it."""


def latency_chart(title: str, outcome: Outcome) -> Chart:
    """How long updates took that were due in each second."""
    description = (
        "From an update's scheduled time until a client had it, in milliseconds, by the second in "
        f"which it was due: {_said(outcome.latency)}."
    )
    lines = [
        Line(name, _points(outcome.timeline, percent), dashed=percent == 100)
        for percent, name in PARTS
    ]
    return Chart(title, description, [_latency_panel(lines)])


def lanes_chart(title: str, outcome: Outcome) -> Chart:
    """The same for each lane that something came in."""
    latencies = {lane: one for lane, one in outcome.latencies.items() if one.count}
    said = "; ".join(f"{lane} {_said(latency)}" for lane, latency in latencies.items())
    lines = _lane_lines(outcome, (50, 99))
    description = f"From an update's scheduled time until a client had it, in milliseconds: {said}."
    return Chart(title, description, [_latency_panel(lines)])


def connections_chart(figures: Mapping[str, float]) -> Chart:
    """CPU a message and memory a connection, by the figures of the scenario `connections`.

    Raises:
        ValueError: When the figures are not those.
    """
    cpu, rss = _by_count(figures, CPU_FIGURE), _by_count(figures, RSS_FIGURE)
    floor = _by_count(figures, FLOOR_FIGURE)
    if not cpu or not rss:
        raise ValueError("there is no result of the scenario connections")
    fewest, most = round(cpu[0][0]), round(cpu[-1][0])
    panels = [
        _constant_panel("CPU a message, µs", cpu, floor),
        _constant_panel("Memory a connection, KiB", rss),
    ]
    beside = f" (a loop that only writes: {_listed(floor)} µs)" if floor else ""
    description = (
        f"With {fewest:,} to {most:,} connections: CPU of the gateways for each message that a "
        f"client is sent, {_listed(cpu)} µs{beside}; resident memory for each connection, "
        f"{_listed(rss)} KiB. The ground is shaded within {BAND:.0%} of one constant."
    )
    return Chart(f"{fewest:,} to {most:,} connections", description, panels, columns=2)


def soak_chart(
    outcome: Outcome,
    blows: Sequence[tuple[float, str]],
    rss: Mapping[str, Sequence[tuple[float, float]]],
) -> Chart:
    """What took how long under blows, and the servers' memory while clients came and went."""
    memory = [Line(role, spread(samples, POINTS_MAX)) for role, samples in rss.items()]
    panels = [
        _latency_panel(_lane_lines(outcome, (99,)), blows),
        Panel("Memory while clients come and go, MiB", "seconds", memory),
    ]
    ends = ", ".join(f"{role} {samples[-1][1]:.0f}" for role, samples in rss.items() if samples)
    description = (
        f"Latency in milliseconds by the second in which an update was due, under {len(blows)} "
        f"blows, which thin lines show; and resident memory of each role, at the end {ends} MiB."
    )
    return Chart("Latency under blows, and memory", description, panels)


def _latency_panel(lines: Sequence[Line], marks: Sequence[tuple[float, str]] = ()) -> Panel:
    return Panel("Latency, ms", "seconds", lines, tall=True, marks=marks)


def _lane_lines(outcome: Outcome, percents: Sequence[int]) -> list[Line]:
    """A line for each lane in which something came."""
    return [
        Line(f"{lane} p{percent}", _points(outcome.timeline_of(lane), percent), index > 0)
        for lane, latency in outcome.latencies.items()
        if latency.count
        for index, percent in enumerate(percents)
    ]


def _by_count(figures: Mapping[str, float], prefix: str) -> list[tuple[float, float]]:
    counts = {
        int(rest): value
        for name, value in figures.items()
        if name.startswith(prefix) and (rest := name.removeprefix(prefix)).isdecimal()
    }
    return [(float(count), counts[count]) for count in sorted(counts)]


def _constant_panel(
    heading: str,
    points: Sequence[tuple[float, float]],
    floor: Sequence[tuple[float, float]] = (),
) -> Panel:
    """Values that should be the same everywhere; and what the least there is does."""
    values = [value for _, value in points]
    middle = (min(values) + max(values)) / 2
    return Panel(
        heading,
        "connections",
        [
            Line("livefeed" if floor else heading, points, dots=True),
            *([Line("a bare write loop", floor, dashed=True)] if floor else []),
        ],
        logarithmic=True,
        places=[count for count, _ in points],
        band=(middle * (1 - BAND), middle * (1 + BAND)),
    )


def _listed(points: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{value:.1f}" for _, value in points)


def _points(timeline: Timeline, percent: float) -> list[tuple[float, float]]:
    points = ((moment, one.percentile(percent) * 1e3) for moment, one in timeline)
    return spread(points, POINTS_MAX)


def _said(latency: LatencyRecorder) -> str:
    parts = (f"{name} {latency.percentile(percent) * 1e3:,.1f}" for percent, name in PARTS)
    return ", ".join(parts)
