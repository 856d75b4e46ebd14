"""What a benchmark shows: directions, the page of all scenarios, charts, slopes, planned blows."""

from __future__ import annotations

import ast
import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.chaos import DEEDS, PARTS, plan
from benchmarks.chart import Chart, Line, Panel, spread, svg
from benchmarks.charts import connections_chart, lanes_chart, latency_chart
from benchmarks.load import Outcome
from benchmarks.measure import LatencyRecorder, slope
from benchmarks.page import page
from benchmarks.publisher import Published
from benchmarks.report import Figure, Goal, Report, Table
from benchmarks.scenarios import scenarios
from benchmarks.scenarios.connections import _deviation
from benchmarks.units import UNITS
from livefeed.cli.bench import command
from livefeed.errors import Misconfigured

TEXT = "{http://www.w3.org/2000/svg}text"
LINES = "{http://www.w3.org/2000/svg}polyline"


@pytest.mark.parametrize(
    ("unit", "goal", "better"),
    [
        ("ms", None, "lower"),
        ("/s", None, "higher"),
        ("×", None, None),
        ("×", Goal("≥", 4), "higher"),
        ("", Goal("≤", 1), "lower"),
        ("", None, None),
        ("ms", Goal("=", 0), None),
        ("s (naive)", None, None),
    ],
)
def test_a_figure_knows_which_way_is_better(
    unit: str, goal: Goal | None, better: str | None
) -> None:
    assert Figure("one", 1.0, unit, goal).better == better


@pytest.mark.parametrize("goal", [Goal("≤", 0.995), Goal("≥", 10_000), Goal("=", 0)])
def test_a_goal_is_read_as_it_is_written(goal: Goal) -> None:
    assert Goal.read(str(goal)) == goal


def test_every_unit_of_the_sources_is_known() -> None:
    """A figure in a unit that nobody knows would never be judged."""
    folder = Path(__file__).parents[2] / "benchmarks" / "scenarios"
    used = {
        call.args[2].value
        for file in folder.glob("*.py")
        for call in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "add"
        and len(call.args) > 2
        and isinstance(call.args[2], ast.Constant)
    }
    ours = {unit for unit in used if "(" not in unit} - {""}
    assert ours <= UNITS.keys()
    assert {"ms", "MiB", "µs"} <= ours


def report(name: str = "some") -> Report:
    made = Report(name, faults={"lost": 0, "doubled": 0})
    made.add("p99_ms", 120.5, "ms", Goal("≤", 100))
    made.add("within", 0.999, "share", Goal("≥", 0.95))
    made.add("deliveries", 1_000)
    return made


def test_the_page_has_every_goal_of_every_scenario_and_the_verdicts() -> None:
    broken = report("broken")
    broken.faults["lost"] = 3
    failed = Report("failed", failure="Unavailable: nats: gone")
    noted = Report("plain", faults={"lost": 0}, notes=["the generator was busy"] * 2)
    text = page([report(), broken, failed, noted], seconds=61.0, seed=7, quick=True)
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines[1:8]] == [
        ["some", "p99_ms"],
        ["some", "within"],
        ["broken", "lost"],
        ["broken", "p99_ms"],
        ["broken", "within"],
        ["failed", "failed"],
        ["plain", "exact"],
    ]
    assert lines[1].endswith("MISSED")
    assert lines[2].endswith("met")
    assert lines[3].endswith("NOT OK")
    assert "deliveries" not in text
    assert "exact: 2 of 4 scenarios; goals met: 2 of 4; seed 7; 61 s; " in text
    assert "failed: failed: Unavailable: nats: gone" in text
    assert text.count("the generator was busy") == 1
    assert "quick" in text


def test_the_page_shows_what_is_side_by_side() -> None:
    compared = report("peers")
    compared.tables.append(Table("durable: one each", ("peer", "µs")))
    compared.tables[0].add("livefeed", "5.5")
    lines = page([compared], seconds=1.0, seed=1, quick=False).splitlines()
    place = lines.index("durable: one each")
    assert lines[place - 1] == ""
    assert [line.split() for line in lines[place + 1 : place + 4]] == [
        ["peer", "µs"],
        ["livefeed", "5.5"],
        [],
    ]


def test_a_note_of_many_scenarios_stands_once() -> None:
    reports = [
        Report(f"s{number}", notes=[f"others used {number}.5 % of a core"]) for number in range(6)
    ]
    reports[0].notes.append("a process was at 91 %")
    reports[1].notes.append("a process was at 85 %")
    text = page(reports, seconds=1.0, seed=1, quick=False)
    assert text.count("others used") == 1
    assert "6 scenarios, such as s0: others used 0.5 % of a core" in text
    assert "s0, s1: a process was at 91 %" in text


def test_a_run_says_its_seed_once() -> None:
    made = report()
    for _ in range(2):
        made.describe(seed=5, quick=False)
    assert [figure.name for figure in made.figures].count("seed") == 1
    assert made.values()["seed"] == 5


# Charts.


def outcome() -> Outcome:
    """Ten seconds of two lanes."""
    made = Outcome(Published())
    for second in range(10):
        for lane, milliseconds in (("high", 5), ("low", 900)):
            recorder = LatencyRecorder()
            for place in range(20):
                recorder.record((milliseconds + place + second) / 1e3)
            made.slots[lane, 100 + second] = recorder  # type: ignore[index]
    return made


def test_latencies_by_the_second_add_up_to_all_of_them() -> None:
    one = outcome()
    assert [moment for moment, _ in one.timeline] == [float(second) for second in range(10)]
    assert sum(recorder.count for _, recorder in one.timeline) == one.latency.count == 400
    assert one.latencies["low"].count == 200
    assert one.latencies["medium"].count == 0
    assert one.latencies["high"].maximum < 0.04 < one.latencies["low"].percentile(1)
    high = one.timeline_of("high")
    assert len(high) == 10
    assert all(recorder.count == 20 and recorder.maximum < 0.04 for _, recorder in high)


@pytest.mark.parametrize("chart", [latency_chart("One", outcome()), lanes_chart("Two", outcome())])
def test_a_chart_is_an_image_that_can_be_read_to_somebody(chart: Chart) -> None:
    image = ET.fromstring(svg(chart))  # our own
    names = image.attrib["aria-labelledby"].split()
    said = [one.text for one in image if one.attrib.get("id") in names]
    assert image.attrib["role"] == "img"
    assert said == [chart.title, chart.description]
    assert "milliseconds" in chart.description
    assert "prefers-color-scheme: dark" in svg(chart)
    inside(image)


def inside(image: ET.Element) -> None:
    """Every point of every line is within the picture."""
    width, height = map(float, image.attrib["viewBox"].split()[2:])
    lines = [found for found in image if found.tag == LINES]
    assert lines
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_what_is_larger_is_higher_and_later_is_further_right() -> None:
    points = [(1.0, 1.0), (10.0, 5.0), (100.0, 10.0)]
    for logarithmic in (False, True):
        panel = Panel("p", "x", [Line("l", points)], logarithmic=logarithmic, tall=logarithmic)
        image = ET.fromstring(svg(Chart("t", "d", [panel])))  # our own
        (line,) = (found for found in image if found.tag == LINES)
        places = [tuple(map(float, one.split(","))) for one in line.attrib["points"].split()]
        assert places == sorted(places)
        assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


def test_names_with_signs_are_text_and_nothing_else() -> None:
    panel = Panel("a < b & c", "x", [Line("<b>", [(0, 0), (1, 1)]), Line("&", [])])
    image = ET.fromstring(svg(Chart("<t>", '"d"', [panel])))  # our own
    assert {"<t>", "a < b & c", "<b>"} <= {found.text for found in image.iter(TEXT)}


def test_a_line_of_many_points_keeps_its_ends() -> None:
    points = [(float(number), 0.0) for number in range(1_000)]
    few = spread(points, 100)
    assert (few[0], few[-1], len(few)) == (points[0], points[-1], 100)
    assert spread(points[:5], 100) == points[:5]


COUNTS = {1_000: (9.5, 14.5), 3_000: (9.1, 14.2), 30_000: (8.8, 14.4)}


def connections() -> Report:
    made = Report("connections", faults={"lost": 0})
    for count, (cpu, rss) in COUNTS.items():
        made.add(f"cpu_us_per_message_{count}", cpu, "µs")
        made.add(f"cpu_us_per_message_{count}_with_idle", 99.0, "µs")
        made.add(f"rss_kib_per_connection_{count}", rss, "KiB")
        made.add(f"floor_cpu_us_per_message_{count}", 1.25 * cpu, "µs (floor)")
    made.add("rss_kib_per_connection", 14.4, "KiB", Goal("≤", 30))
    return made


def test_results_of_connections_are_drawn_by_a_command(tmp_path: Path) -> None:
    results, chart = tmp_path / "results.json", tmp_path / "chart.svg"
    results.write_text(json.dumps(connections().public()), encoding="utf-8")
    done = CliRunner().invoke(command, ["plot", str(results), str(chart)])
    assert done.exit_code == 0, done.output
    assert chart.read_text(encoding="utf-8") == svg(connections_chart(connections().values()))
    image = ET.fromstring(chart.read_text(encoding="utf-8"))  # our own
    shown = [found.text for found in image.iter(TEXT)]
    assert {"1,000", "3,000", "30,000", "9.5", "14.4", "a bare write loop"} <= set(shown)
    assert "99" not in shown
    assert "11" not in shown, "the numbers of the lower line would be in those of the upper"
    inside(image)


def test_what_cannot_be_drawn_is_a_clear_error(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(report().public()), encoding="utf-8")
    for arguments, said in (
        (["plot", str(results), str(tmp_path / "a.svg")], "no result of the scenario connections"),
        (["plot", str(results), str(tmp_path / "a.png")], "there is no"),
        (["latency", "--plot", str(tmp_path / "a.png")], "rsvg-convert a.svg -o a.png"),
        (["latency", "--plot", str(tmp_path / "none" / "a.svg")], "there is no folder"),
        (["storm", "--plot", str(tmp_path / "a.svg")], "latency (latency over time)"),
        (["all", "--plot", str(tmp_path / "a.svg")], "--plot draws one scenario"),
    ):
        outcome_ = CliRunner().invoke(command, arguments)
        assert isinstance(outcome_.exception, Misconfigured), arguments
        assert said in str(outcome_.exception) or said == "there is no"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_every_scenario_of_the_design_is_there() -> None:
    assert set(scenarios()) >= {
        *("fanout", "personal", "latency", "lanes", "connections", "storm", "snapshot"),
        *("backlog", "overload", "cost", "coldstart", "soak", "smoke"),
    }


@pytest.mark.parametrize(
    ("values", "wanted"), [([10, 10], 0), ([8, 12], 0.2), ([8, 10, 12], 0.2), ([5, 15], 0.5)]
)
def test_a_deviation_is_from_the_best_constant_there_is(values: list[float], wanted: float) -> None:
    assert _deviation(values) == wanted


# Memory and blows.


def test_a_slope_is_found_under_noise_and_single_peaks() -> None:
    source = random.Random(3)
    points = [(float(t), 100 + 0.01 * t + source.gauss(0, 0.5)) for t in range(300)]
    for place in range(0, 300, 40):
        points[place] = (float(place), 900.0)
    assert slope(points) == pytest.approx(0.01, abs=0.002)
    assert abs(slope([(t, 50 + source.gauss(0, 0.5)) for t, _ in points])) < 0.001
    assert slope([]) == slope([(1.0, 5.0)]) == 0.0


def test_the_plan_is_the_seeds_and_leaves_nothing_out() -> None:
    blows = plan(1, seconds=600, every_seconds=10)
    assert blows == plan(1, seconds=600, every_seconds=10)
    assert blows != plan(2, seconds=600, every_seconds=10)
    first = blows[: len(PARTS) * len(DEEDS)]
    assert len({(blow.part, blow.deed) for blow in first}) == len(first)
    assert 25 < len(blows) < 70
    for blow in blows:
        assert (blow.seconds > 0) == (blow.deed == "freeze")


@pytest.mark.parametrize("seed", range(20))
def test_blows_come_one_after_the_other_and_end_in_time(seed: int) -> None:
    blows = plan(seed, seconds=60, every_seconds=5)
    assert blows
    at = 0.0
    for blow in blows:
        assert blow.at_seconds >= at
        at = blow.at_seconds + blow.seconds
    assert at < 60
