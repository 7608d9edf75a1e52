"""One chart as SVG, for pages that open without a network: points, lines, bands; logarithmic x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

COLOURS = ("#0b6e99", "#c44900", "#2d7f45", "#8a4fbf", "#a8322d", "#6b6b00", "#46637f", "#b0307f")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 440, 64, 16, 176, 52


@dataclass(frozen=True)
class Series:
    """One colour of the chart."""

    name: str
    points: Sequence[tuple[float, float]] = ()
    line: Sequence[tuple[float, float]] = ()
    ranges: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): upright bars, for intervals."""


def chart(title: str, x: str, y: str, series: Sequence[Series]) -> str:
    """The chart as an `<svg>` element; x must be above zero.

    Args:
        title: for readers who do not see it.
        x, y: names of the axes, with units.
    """
    everything = [p for s in series for p in (*s.points, *s.line)]
    everything += [(at, v) for s in series for at, low, high in s.ranges for v in (low, high)]
    xs, ys = [log10(p[0]) for p in everything], [p[1] for p in everything]
    left, right = min(xs) - 0.03, max(xs) + 0.03
    margin = (max(ys) - min(ys)) * 0.05 or 0.1
    low, high = min(ys) - margin, max(ys) + margin

    def place(at: float, value: float) -> tuple[float, float]:
        across = LEFT + (log10(at) - left) / (right - left) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(place, left, right, low, high, x, y)]
    for number, one in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        if one.line:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(*p) for p in one.line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for at, least, most in one.ranges:
            (a, b), (_, c) = place(at, least), place(at, most)
            parts.append(f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{a:.1f}" y2="{c:.1f}" stroke="{colour}"/>')
        for point in one.points:
            a, b = place(*point)
            told = escape(f"{one.name}: {point[0]:.4g}, {point[1]:.4g}")
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"><title>{told}</title></circle>')
        top = TOP + 14 + 18 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{top - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 30}" y="{top}">{escape(one.name)}</text>')
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#222"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" {style}>'
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>"


def page(title: str, body: str) -> str:
    """A page that holds it."""
    style = (
        "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}"
    )
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _axes(place, left: float, right: float, low: float, high: float, x: str, y: str) -> str:  # type: ignore[no-untyped-def]
    parts = []
    steps = [m * 10**e for e in range(floor(left), ceil(right) + 1) for m in (1, 2, 5)]
    for at in (s for s in steps if left <= log10(s) <= right):
        a, b = place(at, low)
        parts.append(f'<line x1="{a:.1f}" y1="{TOP}" x2="{a:.1f}" y2="{b:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{a:.1f}" y="{b + 16:.1f}" text-anchor="middle">{_short(at)}</text>')
    unit = 10 ** floor(log10((high - low) / 4))
    unit *= next(m for m in (1, 2, 5, 10) if (high - low) / (unit * m) <= 8)
    for number in range(ceil(low / unit), floor(high / unit) + 1):
        a, b = place(10**left, number * unit)
        parts.append(f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{WIDTH - RIGHT}" y2="{b:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{a - 6:.1f}" y="{b + 4:.1f}" text-anchor="end">{number * unit:.4g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x)}</text>')
    height = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {height})"'
    parts.append(f'<text x="14" y="{height}" text-anchor="middle" {turned}>{escape(y)}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    for factor, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{suffix}"
    return f"{value:g}"
