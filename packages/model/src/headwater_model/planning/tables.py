"""Numbers and tables as the planning commands read and print them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite

SUFFIXES = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "Q": 1e15}


def quantity(text: str) -> float:
    """`7B`, `1.5T`, `3e21` as a number above zero.

    Raises:
        ValueError: anything else.
    """
    factor = SUFFIXES.get(text[-1:], 1.0)
    value = float(text[:-1] if factor != 1 else text) * factor
    if not 0 < value < inf:
        raise ValueError(f"{text}: must be a finite number above zero")
    return value


def count(text: str) -> int:
    """A whole number above zero.

    Raises:
        ValueError: anything else.
    """
    if (value := int(text)) < 1:
        raise ValueError(f"{text}: must be at least 1")
    return value


def short(value: float, digits: int = 3) -> str:
    """7.02e10 as `70.2B`; powers of ten beyond what suffixes name."""
    if not isfinite(value):
        return "never"
    for suffix, factor in reversed(SUFFIXES.items()):
        if factor <= abs(value) < 1000 * factor * (1 - 0.5 / 10**digits):
            return f"{value / factor:.{digits}g}{suffix}"
    return f"{value:.{digits}g}"


def percent(value: float, digits: int = 1) -> str:
    """A signed percentage; `never` where it is infinite."""
    if not isfinite(value):
        return "never"
    return f"{round(value, digits + 2) + 0.0:+.{digits}%}"  # + 0.0: no "-0.0%"


def usd(value: float) -> str:
    """Dollars, to three digits."""
    return f"${value:,.0f}" if value < 1e5 else f"${short(value)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, words left and numbers right; a column is of numbers if its second cell on starts like one."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in cells), 0) for i, head in enumerate(heads)]
    numeric = [bool(cells) and all(row[i][:1] in "+-.$0123456789n" for row in cells) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()

    return "\n".join([line(list(heads)), "  ".join("-" * width for width in widths), *map(line, cells)])


def markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same as a Markdown table."""
    lines = [" | ".join(map(str, row)) for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(f"| {line} |" for line in lines)
