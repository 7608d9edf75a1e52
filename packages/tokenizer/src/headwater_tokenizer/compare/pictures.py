"""Pictures of a comparison as SVG text, drawn for a width in CSS pixels; colours and fonts come from the page.

Tokenizers that were trained take the class `s1` and a filled mark, references `s2` and a hollow one, so that they stay
apart in print and for any eyesight. Names are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from headwater_tokenizer.compare.coloured import seen

LETTER = 6.9  # mean advance in a 12 px system font: 6.0 to 6.9, the widest being DejaVu Sans
ROW = 22


@dataclass(frozen=True)
class Item:
    """One tokenizer in a picture."""

    name: str
    value: float
    reference: bool = False
    x: float = 0.0
    """Its place on the x axis (scatter)."""
    low: float | None = None
    high: float | None = None
    """Ends of its interval (intervals)."""

    @property
    def shape(self) -> str:
        return "s2" if self.reference else "s1"


def bars(width: int, title: str, items: Sequence[Item], said: Callable[[float], str]) -> Markup:
    """Horizontal bars from zero with their values."""
    left = _left(width, [item.name for item in items])
    most = max(item.value for item in items) or 1.0
    room = width - left - LETTER * max(len(said(item.value)) for item in items) - 10
    parts = []
    for i, item in enumerate(items):
        y, length = 2 + i * ROW, max(0.0, item.value) / most * room
        parts.append(_text(0, y + 14, _fitted(item.name, left - 4)))
        parts.append(Markup(f'<rect class="bar {item.shape}" x="{left:.1f}" y="{y + 3}" width="{length:.1f}" '
                            'height="14"/>'))  # fmt: skip
        parts.append(_text(left + length + 6, y + 14, said(item.value), "axis"))
    return _svg(width, 4 + ROW * len(items), title, parts)


def intervals(width: int, title: str, items: Sequence[Item], x_label: str, said: Callable[[float], str]) -> Markup:
    """A dot a row, with a whisker from `low` to `high` where both are there."""
    ends = [v for item in items for v in (item.value, item.low, item.high) if v is not None]
    scale = ticks(min(ends), max(ends))
    left, right = _left(width, [item.name for item in items]) + 6, 18
    floor = 6 + ROW * len(items)
    px = _axis(scale[0], scale[-1], left, width - right)
    parts = _x_axis(scale, px, 2, floor, x_label, width - right)
    for i, item in enumerate(items):
        y = 6 + ROW * (i + 0.5)
        parts.append(_text(0, y + 4, _fitted(item.name, left - 10)))
        told = f"{item.name}: {said(item.value)}"
        if item.low is not None and item.high is not None:
            parts.append(_line(px(item.low), y, px(item.high), y, f"whisker {item.shape}"))
            told += f" ({said(item.low)} to {said(item.high)})"
        parts.append(_dot(px(item.value), y, item, told))
    return _svg(width, floor + 38, title, parts)


def scatter(
    width: int, title: str, items: Sequence[Item], x_label: str, y_label: str, said_x: Callable[[float], str],
    log_x: bool = False, height: int = 300,
) -> Markup:  # fmt: skip
    """Named points; names that would lie on another one are moved up or down."""
    values = [item.value for item in items]
    y_scale = ticks(min(values), max(values))
    places = [item.x for item in items]
    x_scale = log_ticks(min(places), max(places)) if log_x else ticks(min(places), max(places))
    left, right, top, floor = 34, 30, 26, height - 40
    px = _axis(x_scale[0], x_scale[-1], left + 8, width - right - 8, log_x)
    py = _axis(y_scale[0], y_scale[-1], floor - 6, top + 6)
    parts = [_text(0, 12, y_label, "axis")]
    for value, name in zip(y_scale, _named(y_scale), strict=True):
        parts.append(_line(left, py(value), width - right, py(value), "grid"))
        parts.append(_text(left - 6, py(value) + 4, name, "axis", "end"))
    every = max(1, -(-len(x_scale) * 46 // (width - left - right)))
    shown = [(value, said_x(value)) for value in x_scale[::every]]
    parts += [_text(px(value), floor + 17, name, "axis", "middle") for value, name in shown]
    parts += [_line(px(value), floor, px(value), floor + 4, "tick") for value, _ in shown]
    parts.append(_line(left, floor, width - right, floor, "tick"))
    parts.append(_text(width - right, height - 6, x_label, "axis", "end"))
    taken: list[tuple[float, float, float]] = [(px(item.x) - 5, px(item.x) + 5, py(item.value)) for item in items]
    for item in sorted(items, key=lambda item: (-item.value, item.name)):
        x, y = px(item.x), py(item.value)
        parts.append(_named_point(x, y, item, taken, width, top, floor, said_x))
    return _svg(width, height, title, parts)


def _named_point(
    x: float, y: float, item: Item, taken: list[tuple[float, float, float]], end: float, top: float, floor: float,
    said_x: Callable[[float], str],
) -> Markup:  # fmt: skip
    """A dot and its name at the nearest free place, which is then taken: (left, right, middle) in pixels."""
    long = LETTER * len(item.name)
    steps = sorted((13 * n for n in range(-12, 13)), key=lambda step: (abs(step), -step))
    for step in steps:
        at = y + step
        for low in (x + 9, x - 9 - long):
            inside = low >= 36 and low + long <= end and top - 4 <= at <= floor - 4
            if inside and not any(a < low + long and b > low and abs(c - at) < 12 for a, b, c in taken):
                taken.append((low, low + long, at))
                edge = low - 2 if low > x else low + long + 2
                lead = _line(x, y, edge, at, "lead") if step else Markup("")
                dot = _dot(x, y, item, f"{item.name}: {item.value:.2f} at {said_x(item.x)}")
                return lead + dot + _text(low, at + 4, item.name, "halo")
    return _dot(x, y, item, f"{item.name}: {item.value:.2f} at {said_x(item.x)}")  # no room: its name on hover


def heat(
    width: int, title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]],
    said: Callable[[float], str],
) -> Markup:  # fmt: skip
    """A table of shaded numbers, the darker the higher: `values` [rows][columns], None for what was not measured."""
    found = [value for row in values for value in row if value is not None]
    low, high = min(found), max(found)
    left = _left(width, rows)
    most = max(len(said(value)) for value in found)
    cell = max(LETTER * most + 12, min(64.0, (width - left) / len(columns)))
    tilted = max(len(name) for name in columns) * LETTER > cell
    head = 8 + LETTER * max(len(name) for name in columns) * 0.71 + 8 if tilted else 20
    parts = []
    for j, name in enumerate(columns):
        x = left + cell * (j + 0.5)
        place = Markup(f' transform="rotate(-45 {x:.1f} {head - 6:.1f})"') if tilted else Markup("")
        parts.append(_text(x, head - 6, name, "axis", "start" if tilted else "middle", place))
    for i, (row, name) in enumerate(zip(values, rows, strict=True)):
        y = head + i * ROW
        parts.append(_text(0, y + 15, _fitted(name, left - 8)))
        for j, value in enumerate(row):
            if value is None:
                continue
            shade = (value - low) / (high - low) if high > low else 0.0
            parts.append(Markup(
                f'<rect class="heat" x="{left + cell * j:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{ROW - 1}" '
                f'fill-opacity="{0.06 + 0.46 * shade:.3f}"/>'
            ))  # fmt: skip
            parts.append(_text(left + cell * (j + 0.5), y + 15, said(value), "figure", "middle"))
    end = left + cell * len(columns) + (LETTER * len(columns[-1]) * 0.71 if tilted else 0)
    return _svg(max(width, math.ceil(end)), math.ceil(head) + ROW * len(rows) + 2, title, parts)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that cover [low, high]."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, but for rounding
        low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
    rough = (high - low) / (wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.15g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of two that cover [low, high], which are positive: vocabularies are sized by them."""
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    return [2.0**n for n in range(first, max(last, first + 1) + 1)]


def _axis(low: float, high: float, start: float, end: float, log: bool = False) -> Callable[[float], float]:
    def place(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return start + share * (end - start)

    return place


def _x_axis(
    scale: Sequence[float], px: Callable[[float], float], top: float, floor: float, label: str, end: float
) -> list[Markup]:
    parts = []
    for value, name in zip(scale, _named(scale), strict=True):
        parts.append(_line(px(value), top, px(value), floor, "grid"))
        parts.append(_text(px(value), floor + 15, name, "axis", "middle"))
    return [*parts, _text(end, floor + 34, label, "axis", "end")]


def _named(scale: Sequence[float]) -> list[str]:
    digits = max(len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in scale)
    return [f"{value:.{digits}f}" for value in scale]


def _left(width: int, names: Sequence[str]) -> float:
    return min(0.42 * width, LETTER * max(len(name) for name in names) + 10)


def _fitted(name: str, room: float) -> str:
    most = int(room / LETTER)
    return name if len(name) <= most else name[: max(1, most - 1)].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _dot(x: float, y: float, item: Item, told: str) -> Markup:
    shape = Markup(f'<circle class="mark {item.shape}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>')
    return shape + escape(seen(told)) + Markup("</title></circle>")


def _line(x1: float, y1: float, x2: float, y2: float, shape: str) -> Markup:
    return Markup(f'<line class="{shape}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def _text(
    x: float, y: float, text: str, shape: str = "label", anchor: str = "start", more: Markup | None = None
) -> Markup:
    place = Markup(f'<text class="{shape}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"') + (more or Markup(""))
    return place + Markup(">") + escape(seen(text)) + Markup("</text>")


def _svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    """The whole picture: `title` is what a screen reader says."""
    head = f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
    return Markup(head) + Markup(' aria-label="{}">').format(seen(title)) + Markup("").join(parts) + Markup("</svg>")
