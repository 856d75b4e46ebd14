"""Draws lines as an SVG that reads the same on a light and on a dark page, for eyes and readers.

Pure: numbers go in, text comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 760
PANEL_HEIGHT: Final = 250
TITLE_HEIGHT: Final = 34
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 46, 44
"""Around what is drawn of a panel: its numbers, its heading and legend, its axis."""
INSET: Final = 22
"""From the axes to the first and the last of named places, whose words are wider than a point."""
TICKS_MAX: Final = 6
LEGEND_GAP: Final = 26
LETTER_WIDTH: Final = 6.4
"""About, to place one entry of a legend beside another."""

# One grey for words reads the same on white and on black; lines get a lighter tone on black.
STYLE: Final = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; \
fill: #6f7b87; }
.title { font-size: 15px; font-weight: 600; }
.heading { font-weight: 600; }
.grid { stroke: #6f7b87; stroke-opacity: 0.25; }
.mark { stroke: #6f7b87; stroke-opacity: 0.7; stroke-dasharray: 2 3; }
.band { fill: #6f7b87; fill-opacity: 0.13; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 4; }
.c0 { stroke: #1f6fd0; } .c1 { stroke: #cf6210; } .c2 { stroke: #157a52; }
.c3 { stroke: #6d4fc4; } .c4 { stroke: #b0305c; } .c5 { stroke: #7a6a00; }
@media (prefers-color-scheme: dark) {
.c0 { stroke: #5a9df0; } .c1 { stroke: #f08a3c; } .c2 { stroke: #3fb488; }
.c3 { stroke: #a58cf0; } .c4 { stroke: #e8739b; } .c5 { stroke: #cbb64a; }
}"""
COLOURS: Final = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line, by its points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    dots: bool = False
    """Whether each point is shown: where there are few."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share two axes.

    Attributes:
        heading: What is drawn, with its unit.
        across: What the axis below says, with its unit.
        lines: At most six are told apart by colour.
        logarithmic: Whether the axis below is.
        tall: Whether the axis on the left is logarithmic; otherwise it begins at 0.
        places: Where the axis below has its numbers, when not at round ones.
        band: Between which values the ground is shaded.
        marks: Moments that a thin line shows, each with what happened.
    """

    heading: str
    across: str
    lines: Sequence[Line]
    logarithmic: bool = False
    tall: bool = False
    places: Sequence[float] = ()
    band: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """One or more panels, below or beside each other.

    Attributes:
        title: What one sees.
        description: The same for who does not see it: what the lines say.
        columns: How many panels stand beside each other.
    """

    title: str
    description: str
    panels: Sequence[Panel]
    columns: int = 1


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to places."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value stands; what is outside stands at the edge."""
        low, high, value = map(self._scaled, (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within it."""
        if self.logarithmic:
            return _powers(self.low, self.high)
        step = _round_step((self.high - self.low) / TICKS_MAX)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.logarithmic else value


def svg(chart: Chart) -> str:
    """The chart as the text of an SVG file."""
    rows = math.ceil(len(chart.panels) / chart.columns)
    height = TITLE_HEIGHT + rows * PANEL_HEIGHT
    width = WIDTH / chart.columns
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title description">',
        f'<title id="title">{escape(chart.title)}</title>',
        f'<desc id="description">{escape(chart.description)}</desc>',
        f"<style>\n{STYLE}\n</style>",
        f'<text class="title" x="12" y="22">{escape(chart.title)}</text>',
    ]
    for number, panel in enumerate(chart.panels):
        row, column = divmod(number, chart.columns)
        parts += _panel(panel, column * width, TITLE_HEIGHT + row * PANEL_HEIGHT, width)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, left: float, top: float, width: float) -> Iterator[str]:
    x, y = _axes(panel, left, top, width)
    edge, end = left + LEFT, left + width - RIGHT
    yield f'<text class="heading" x="{left + 12:g}" y="{top + 16:g}">{escape(panel.heading)}</text>'
    yield from _legend(panel.lines, left + LEFT, top + 34)
    if panel.band is not None:
        high, low = y.place(panel.band[1]), y.place(panel.band[0])
        yield _tag("rect", "band", x=edge, y=high, width=end - edge, height=low - high)
    for value in y.ticks():
        at = y.place(value)
        yield _tag("line", "grid", x1=edge, x2=end, y1=at, y2=at)
        yield _text(_number(value), edge - 8, at + 4, "end")
    for value in panel.places or x.ticks():
        yield _text(_number(value), x.place(value), y.start + 18, "middle")
    yield _text(panel.across, (edge + end) / 2, y.start + 36, "middle")
    for moment, what in panel.marks:
        at = x.place(moment)
        line = _tag("line", "mark", x1=at, x2=at, y1=y.stop, y2=y.start)
        yield f"{line.removesuffix('/>')}><title>{escape(what)}</title></line>"
    for number, one in enumerate(panel.lines):
        yield from _line(one, number, x, y)


def _axes(panel: Panel, left: float, top: float, width: float) -> tuple[_Axis, _Axis]:
    across = [point[0] for line in panel.lines for point in line.points] or [0.0, 1.0]
    values = [point[1] for line in panel.lines for point in line.points] or [0.0, 1.0]
    values += panel.band or ()
    inset = INSET if panel.places else 0
    start, stop = left + LEFT + inset, left + width - RIGHT - inset
    x = _Axis(min(across), max(across), start, stop, panel.logarithmic)
    bottom, ceiling = top + PANEL_HEIGHT - BOTTOM, top + TOP
    if panel.tall:
        seen = [value for value in values if value > 0] or [1.0]
        return x, _Axis(min(seen) * 0.8, max(seen) * 1.2, bottom, ceiling, logarithmic=True)
    return x, _Axis(0.0, max(values) * 1.12 or 1.0, bottom, ceiling)


def _legend(lines: Sequence[Line], x: float, y: float) -> Iterator[str]:
    if len(lines) < 2:
        return
    for number, line in enumerate(lines):
        yield _tag("line", _class(line, number), x1=x, x2=x + 16, y1=y - 4, y2=y - 4)
        yield _text(line.name, x + 21, y, "start")
        x += 21 + LETTER_WIDTH * len(line.name) + LEGEND_GAP - 8


def _line(line: Line, number: int, x: _Axis, y: _Axis) -> Iterator[str]:
    places = [(x.place(across), y.place(value)) for across, value in line.points]
    points = " ".join(f"{across:.1f},{height:.1f}" for across, height in places)
    yield f'<polyline class="{_class(line, number)}" points="{points}"/>'
    if line.dots:
        for (across, height), (_, value) in zip(places, line.points, strict=True):
            yield _tag("circle", _class(line, number), cx=across, cy=height, r=3)
            yield _text(_number(round(value, 1)), across, height - 9, "middle")


def _class(line: Line, number: int) -> str:
    return f"line c{number % COLOURS}{' dashed' if line.dashed else ''}"


def _tag(name: str, kind: str, **numbers: float) -> str:
    attributes = " ".join(f'{key}="{value:.1f}"' for key, value in numbers.items())
    return f'<{name} class="{kind}" {attributes}/>'


def _text(text: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20 … that is not less."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _powers(low: float, high: float) -> list[float]:
    """1, 3, 10, 30 … between two numbers; of many, the powers of ten alone."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**exponent for exponent in exponents for factor in (1, 3)]
    shown = [value for value in fine if low <= value <= high]
    if len(shown) <= TICKS_MAX:
        return shown
    return [value for value in shown if math.log10(value) == round(math.log10(value))]


def spread(points: Iterable[tuple[float, float]], least: int) -> list[tuple[float, float]]:
    """At most so many of the points, about evenly, with the first and the last."""
    every = list(points)
    if len(every) <= least:
        return every
    step = (len(every) - 1) / (least - 1)
    return [every[round(number * step)] for number in range(least)]
