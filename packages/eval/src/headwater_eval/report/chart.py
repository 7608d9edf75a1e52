"""Plots as SVG text, drawn for a given width in CSS pixels; colours, fonts and dark mode come from the page.

Every plot is a whole `<svg>` element. Series take the classes `s1` to `s6` in the order given and differ in
dash or marker as well as in colour, so that they stay apart in print and for any eyesight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .units import cut, finite, number, safe_text

_LETTER = 6.9  # mean advance in a 12 px system font: 6.0 to 6.9, the widest being DejaVu Sans
_HEIGHT_OF_ROW = 22
_PATHS = {
    3: (-5.0, "l5 5l-5 5l-5 -5"),
    4: (-5.0, "l5 9h-10"),
    5: (5.0, "l5 -9h-10"),
    6: (-2.0, "h5v4h-10v-4"),
}
"""Series -> where its marker begins above the centre, and its outline."""


@dataclass(frozen=True)
class Series:
    """A line: points by rising x; points that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    marked: bool = False
    """A dot at every point, for values measured now and then."""
    faint: bool = False
    """A thin line in the background, of the next line's colour: raw values behind their average."""


@dataclass(frozen=True)
class Level:
    """A horizontal line for something to compare with."""

    name: str
    value: float


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


def lines(
    width: int, title: str, series: Sequence[Series], x_label: str, y_label: str,
    levels: Sequence[Level] = (), log_y: bool = False, height: int = 280,
) -> Markup:  # fmt: skip
    """Lines over a shared x axis.

    Args:
        levels: dashed horizontal lines with their names at the right.
        log_y: logarithmic y axis; values that are not positive are left out.
    """
    usable = [[(x, y) for x, y in s.points if finite(x) and finite(y) and (y > 0 or not log_y)] for s in series]
    xs = [x for points in usable for x, _ in points]
    ys = [y for points in usable for _, y in points] + [level.value for level in levels if finite(level.value)]
    if not xs:
        return svg(width, 40, title, [text_at(0, 20, "no values to draw")])
    y_ticks = log_ticks(min(ys), max(ys)) if log_y else ticks(min(ys), max(ys))
    y_names = _tick_names(y_ticks)
    hues = _hues(series)
    keys = [(s.name, n) for s, n in zip(series, hues, strict=True) if not s.faint]
    keys = keys if len(keys) > 1 else []
    two_lines = _legend_width(keys) + _LETTER * len(y_label) + 16 > width
    left, right, top, bottom = 14 + _LETTER * max(map(len, y_names)), 10, 46 if two_lines else 30, 40
    x_low, x_high = _spread(min(xs), max(xs))
    y_low, y_high = _spread(min([*ys, y_ticks[0]]), max([*ys, y_ticks[-1]]))

    def px(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (width - left - right)

    def py(y: float) -> float:
        share = math.log(y / y_low) / math.log(y_high / y_low) if log_y else (y - y_low) / (y_high - y_low)
        return height - bottom - share * (height - top - bottom)

    parts = [text_at(0, 12, y_label, "axis")]
    for value, name in zip(y_ticks, y_names, strict=True):
        parts.append(_line(left, py(value), width - right, py(value), "grid"))
        parts.append(text_at(left - 6, py(value) + 4, name, "axis", "end"))
    for value, name in _fitting_x_ticks(x_low, x_high, width - left - right):
        parts.append(_line(px(value), height - bottom, px(value), height - bottom + 4, "tick"))
        parts.append(text_at(px(value), height - bottom + 17, name, "axis", "middle"))
    parts.append(_line(left, height - bottom, width - right, height - bottom, "tick"))
    parts.append(text_at(width - right, height - 6, x_label, "axis", "end"))
    for level in levels:
        if finite(level.value):
            parts.append(_line(left, py(level.value), width - right, py(level.value), "level"))
            parts.append(text_at(width - right - 2, py(level.value) - 5, level.name, "level-name halo", "end"))
    drawn = zip(series, usable, hues, strict=True)
    for s, points, n in sorted(drawn, key=lambda item: (not item[0].faint, item[2])):
        shape = f"s{n}" + (" faint" if s.faint else "")
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in thin(points, int(width)))
        parts.append(Markup(f'<polyline class="line {shape}" points="{path}"/>'))
        if s.marked:
            parts += [
                Markup(f'<circle class="mark {shape}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="3"><title>')
                + escape(safe_text(f"{s.name}: {number(y)} at {number(x, 6)}"))
                + Markup("</title></circle>")
                for x, y in points
            ]
    parts += _legend(keys, 0 if two_lines else width - right - _legend_width(keys), 30 if two_lines else 12)
    return svg(width, height, title, parts)


def dots(
    width: int, title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[Interval | None], float | None]],
    x_label: str,
) -> Markup:  # fmt: skip
    """Dots with whiskers: one group of rows a task, one dot a model, a tick where chance lies.

    Args:
        names: what the dots are, in the order of each row's intervals.
        rows: (label, interval or None for each name, reference value or None).
    """
    drawn = [i for _, intervals, _ in rows for i in intervals if i is not None]
    values = [v for i in drawn for v in (i.low, i.high)] + [c for _, _, c in rows if c is not None]
    if not drawn:
        return svg(width, 40, title, [text_at(0, 20, "no values to draw")])
    scale = ticks(min(values), max(values))
    low, high = _spread(min([*values, scale[0]]), max([*values, scale[-1]]))
    beside = width >= 520
    left = min(0.32 * width, _LETTER * max(len(label) for label, _, _ in rows) + 14) if beside else 16
    right, top, step = 18, 30, 13
    head = 0 if beside else 16
    group = head + step * len(names) + 12
    height = round(top + group * len(rows) + 38)

    def px(x: float) -> float:
        return left + (x - low) / (high - low) * (width - left - right)

    floor = top + group * len(rows)
    parts = _legend([(name, i + 1) for i, name in enumerate(names)], 0, 12, marker=True)
    for value, name in zip(scale, _tick_names(scale), strict=True):
        parts.append(_line(px(value), top, px(value), floor, "grid"))
        parts.append(text_at(px(value), floor + 15, name, "axis", "middle"))
    for r, (label, intervals, chance) in enumerate(rows):
        y0 = top + group * r
        if r:
            parts.append(_line(0, y0, width, y0, "rule"))
        if beside:
            parts.append(text_at(0, y0 + group / 2 + 4, _fitted(label, left - 8), "label"))
        else:
            parts.append(text_at(0, y0 + 14, _fitted(label, width), "label"))
        if chance is not None:
            parts.append(_line(px(chance), y0 + head + 4, px(chance), y0 + group - 4, "level"))
        for i, interval in enumerate(intervals):
            if interval is None:
                continue
            y = y0 + head + 6 + step * (i + 0.5)
            parts.append(_line(px(interval.low), y, px(interval.high), y, f"whisker s{i + 1}"))
            told = f"{label}, {names[i]}: {number(interval.value)} ({number(interval.low)} to {number(interval.high)})"
            parts.append(_marker(px(interval.value), y, i + 1, told))
    parts.append(text_at(width - right, height - 4, x_label, "axis", "end"))
    return svg(width, height, title, parts)


def bars(width: int, title: str, rows: Sequence[tuple[str, float, str]], shape: str = "s1") -> Markup:
    """Horizontal bars from zero: (label, value, value as text)."""
    if not rows:
        return svg(width, 40, title, [text_at(0, 20, "no values to draw")])
    values = [max(0.0, value) if finite(value) else 0.0 for _, value, _ in rows]
    left = min(0.42 * width, _LETTER * max(len(label) for label, _, _ in rows) + 10)
    room = width - left - _LETTER * max(len(text) for _, _, text in rows) - 10
    most = max(values) or 1.0
    parts = []
    for i, ((label, _, text), value) in enumerate(zip(rows, values, strict=True)):
        y, length = 2 + i * _HEIGHT_OF_ROW, value / most * room
        parts.append(text_at(0, y + 14, _fitted(label, left - 4), "label"))
        parts.append(Markup(f'<rect class="bar {shape}" x="{left:.1f}" y="{y + 3}" width="{length:.1f}" height="14"/>'))
        parts.append(text_at(left + length + 6, y + 14, text, "axis"))
    return svg(width, 4 + _HEIGHT_OF_ROW * len(rows), title, parts)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that cover [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, but for rounding
        low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
    rough = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return sorted({float(f"{i * step:.15g}") for i in range(first, last + 1)})


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that cover [low, high]; both must be positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    grid = [float(f"{m}e{e}") for e in range(first, last + 1) for m in (1, 2, 5)]
    below = [v for v in grid if v <= low] or grid[:1]
    above = [v for v in grid if v >= high] or grid[-1:]
    return [v for v in grid if below[-1] <= v <= above[0]]


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most about `most` points: of each run of neighbours the lowest and the highest, so that spikes stay."""
    if len(points) <= most or most < 4:
        return list(points)
    kept = [points[0]]
    run = math.ceil(len(points) / (most // 2))
    for start in range(0, len(points), run):
        part = points[start : start + run]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` finite values at each place (fewer at the start)."""
    out, held = [], []
    for value in values:
        if finite(value):
            held.append(value)
        held = held[-window:]
        out.append(sum(held) / len(held) if held else math.nan)
    return out


def _fitted(label: str, room: float) -> str:
    most = int(room / _LETTER)
    return label if len(label) <= most else cut(label, max(1, most - 2))


def _spread(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis, apart even where all values are one."""
    return (low, high) if high > low else (low, low + max(1.0, abs(low) / 10))


def _fitting_x_ticks(low: float, high: float, room: float) -> list[tuple[float, str]]:
    for wanted in (7, 5, 3, 2):
        inside = [t for t in ticks(low, high, wanted) if low <= t <= high]
        names = _tick_names(inside)
        if inside and len(inside) * (max(map(len, names)) * _LETTER + 12) <= room:
            break
    return list(zip(inside, names, strict=True))


def _tick_names(values: Sequence[float]) -> list[str]:
    most = max((abs(v) for v in values), default=0.0)
    if most >= 1e6:
        return [f"{v / 1e6:g} M" if v else "0" for v in values]
    if most >= 1e4:
        return [f"{v / 1e3:g} k" if v else "0" for v in values]
    if any(0 < abs(v) < 1e-4 for v in values):
        return [f"{v:.0e}".replace("e-0", "e-").replace("-", "\N{MINUS SIGN}") for v in values]
    digits = max((len(f"{v:.6f}".rstrip("0").partition(".")[2]) for v in values), default=0)
    return [f"{v:.{digits}f}".replace("-", "\N{MINUS SIGN}") for v in values]


def _hues(series: Sequence[Series]) -> list[int]:
    """A number for each line: its own, or for a faint one that of the line that comes after it."""
    firm = 0
    hues = []
    for s in series:
        hues.append(firm + 1)
        firm += not s.faint
    return hues


def _legend_width(names: Sequence[tuple[str, int]]) -> float:
    return sum(34 + _LETTER * len(name) for name, _ in names)


def _legend(names: Sequence[tuple[str, int]], x: float, y: float, marker: bool = False) -> list[Markup]:
    """Keys in one line: (name, number of the series), as markers or as pieces of line."""
    parts: list[Markup] = []
    for name, n in names:
        parts.append(_marker(x + 7, y - 4, n, name) if marker else _line(x, y - 4, x + 15, y - 4, f"line s{n}"))
        parts.append(text_at(x + 20, y, name, "axis"))
        x += 34 + _LETTER * len(name)
    return parts


def _marker(x: float, y: float, n: int, told: str) -> Markup:
    """Circle, square, diamond, triangles, bar: the n-th series' marker, with `told` shown on hover."""
    if n == 2:
        shape = f'<rect class="mark s2" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7">'
        end = "</rect>"
    elif n in _PATHS:
        start, path = _PATHS[n]
        shape, end = f'<path class="mark s{n}" d="M{x:.1f} {y + start:.1f}{path}z">', "</path>"
    else:
        shape, end = f'<circle class="mark s{n}" cx="{x:.1f}" cy="{y:.1f}" r="4">', "</circle>"
    return Markup(shape) + Markup("<title>") + escape(safe_text(told)) + Markup("</title>" + end)


def _line(x1: float, y1: float, x2: float, y2: float, shape: str) -> Markup:
    return Markup(f'<line class="{shape}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def text_at(x: float, y: float, text: str, shape: str = "label", anchor: str = "start") -> Markup:
    """Text at a place, escaped; `shape` is its class in the style sheet."""
    place = f'<text class="{shape}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
    return Markup(place) + escape(safe_text(text)) + Markup("</text>")


def svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    """The whole picture: `title` is what a screen reader says."""
    head = f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
    name = escape(safe_text(title))
    return Markup(head) + Markup(' aria-label="{0}">').format(name) + Markup("").join(parts) + Markup("</svg>")


def side_by_side(width: int, pictures: Sequence[Callable[[int], Markup]]) -> Markup:
    """Small pictures, two in a row where there is room."""
    each = (width - 24) // 2 if width >= 520 else width
    return Markup('<div class="pictures">') + Markup("").join(draw(each) for draw in pictures) + Markup("</div>")
