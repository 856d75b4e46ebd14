"""The week's traffic is the same for a seed, and what is said of its tables is what was seen."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from benchmarks.chart import svg
from benchmarks.database_sizes import Sample, growth, sizes_chart
from benchmarks.week_traffic import Flush, Traffic
from livefeed.limits import MIB
from livefeed.update import CONTENT_REMOVAL


def week(seed: int, hours: int = 30) -> list[list[Flush]]:
    traffic = Traffic(seed, users=50, events=40, rows_max=100)
    return [list(traffic.hour(hour, accepted_at=hour)) for hour in range(hours)]


def sample(hours: float, mib: float) -> Sample:
    return Sample(hours, {"feed_entry": int(mib * MIB), "other": MIB}, {}, 1.0, 2.0, 3.0)


def test_the_same_seed_is_the_same_week() -> None:
    """Two runs of one seed write the same, of another seed something else."""
    assert week(1) == week(1)
    assert week(1) != week(2)


def test_few_get_most_and_nights_are_quiet() -> None:
    """The first user has more than the last ten, and four in the morning less than four later."""
    hours = week(3)
    channels = [key.channel for hour in hours for flush in hour for key in flush.entries]
    last = sum(channels.count(f"user:u{rank}/home") for rank in range(40, 50))
    assert channels.count("user:u0/home") > last / 2
    rows = [sum(len(flush.entries) for flush in hour) for hour in hours]
    assert rows[4] < rows[16] / 3


def test_each_entry_has_its_body_and_order() -> None:
    """Every ref has a body in its flush, and what is newer has the newer key."""
    seen: dict[tuple[str, int, int], tuple[int, int, bytes]] = {}
    kinds = set()
    for flush in (flush for hour in week(4) for flush in hour):
        for key, entry in flush.entries.items():
            assert entry.order.ref in flush.bodies
            assert seen.get(key, (0, 0, b"")) < entry.order
            seen[key] = entry.order
            kinds.add(entry.kind)
    assert CONTENT_REMOVAL in kinds
    assert len(kinds) == 4


def test_growth_is_between_the_same_hours_of_two_days() -> None:
    """It is the last size by that of the sample so many hours before."""
    samples = [sample(6.0 * number, float(number)) for number in range(1, 13)]
    assert growth(samples, 48) == 13 / 5


def test_a_plot_is_an_image() -> None:
    """Each arm has two lines and its name, all within the picture."""
    samples = [sample(6.0 * number, float(number)) for number in range(1, 29)]
    image = ET.fromstring(svg(sizes_chart({"one": samples, "other": samples[:5]})))  # our own
    width, height = map(float, image.attrib["viewBox"].split()[2:])
    lines = [found for found in image if found.tag.endswith("polyline")]
    assert len(lines) == 4
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
