"""Metrics of any shape as tables: a report must not lose a figure because a stage named it anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .document import Table
from .units import NONE, count, finite, number


def dig(value: Any, *keys: str) -> Any:
    """A value deep inside nested mappings; None where the way ends."""
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def spelled(key: str) -> str:
    """bits_per_byte -> bits per byte."""
    return key.replace("_", " ")


def cell(value: Any) -> str:
    """One figure as text."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value) if abs(value) < 1e12 else number(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    return str(value)


def with_intervals(figures: Mapping[str, Any]) -> dict[str, Any]:
    """X, X_low and X_high as one figure with its interval."""
    folded = dict(figures)
    for key, value in figures.items():
        low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
        if finite(value) and finite(low) and finite(high):
            folded[key] = f"{number(value)} [{number(low)}, {number(high)}]"
            del folded[f"{key}_low"], folded[f"{key}_high"]
    return folded


def metrics_tables(caption: str, metrics: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[Table]:
    """The plain figures as one table, and each mapping in it as one more."""
    plain = {key: value for key, value in metrics.items() if key not in leave_out and not isinstance(value, Mapping)}
    tables = []
    if plain:
        rows = [(spelled(key), cell(value)) for key, value in with_intervals(plain).items()]
        tables.append(Table(caption, ("figure", "#value"), rows))
    for key, value in metrics.items():
        if key not in leave_out and isinstance(value, Mapping) and value:
            about = f"{caption}, {spelled(key)}"
            tables += [nested_table(about, key, value)] if _is_table(value) else metrics_tables(about, value)
    return tables


def nested_table(caption: str, key: str, value: Mapping[str, Mapping[str, Any]]) -> Table:
    """A mapping of mappings: a row each, a column for every key that any of them has."""
    numeric = {c: all(not isinstance(row.get(c), str) for row in value.values()) for row in value.values() for c in row}
    folded = {name: with_intervals(row) for name, row in value.items()}
    columns = list(dict.fromkeys(inner for row in folded.values() for inner in row))
    heads = [spelled(key.removeprefix("by_")), *(("#" if numeric[c] else "") + spelled(c) for c in columns)]
    rows = [(name, *(cell(row.get(c)) for c in columns)) for name, row in folded.items()]
    return Table(caption, heads, rows)


def settings_table(caption: str, config: Mapping[str, Any]) -> Table:
    """A resolved config, nested keys joined by dots, values as they were given."""
    rows = [(key, _setting(value)) for key, value in _flat(config)]
    return Table(caption, ("parameter", "value"), rows or [("none", "")])


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_setting, value)) or "(empty)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_setting(inner)}" for key, inner in value.items()) or "(empty)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value) or '""'


def _is_table(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and bool(value) and all(isinstance(row, Mapping) and row for row in value.values())
    )


def _flat(mapping: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
