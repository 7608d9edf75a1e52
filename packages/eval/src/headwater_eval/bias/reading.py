"""How the files of bias tests become items: rows with their numbers, and a reason for every row that is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..readers import Fields, Reject, Rows

Numbered = tuple[int, Any]
"""1-based number of a row, and the row."""


def items_of(rows: Iterable[Numbered], parse: Callable[[Any], Fields]) -> Rows:
    """Fields of each row, or the row set aside with its reason: what `parse` raises (KeyError, ValueError, ...)."""
    for number, raw in rows:
        try:
            yield number, _checked(parse(raw))
        except KeyError as e:
            yield Reject(number, f"no field {e.args[0]}", _shown(raw))
        except (ValueError, TypeError, AttributeError, IndexError) as e:
            yield Reject(number, str(e), _shown(raw))


def json_lines(path: Path) -> Iterator[Numbered]:
    """The rows of a JSON Lines file; a line that is no JSON object comes as its text, which no parser takes."""
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                text = line.decode("utf-8", "replace")
                try:
                    yield number, json.loads(text)
                except ValueError:
                    yield number, text


def renumbered(rows: Iterable[Numbered]) -> Iterator[Numbered]:
    """The same rows numbered through, for a benchmark of several files."""
    for number, (_, raw) in enumerate(rows, 1):
        yield number, raw


def _checked(fields: Fields) -> Fields:
    if not fields["text"].strip():
        raise ValueError("empty")
    if "choices" in fields:
        choices, label = fields["choices"], fields["label"]
        if len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
            raise ValueError("fewer than two choices, or an empty one")
        if not 0 <= label < len(choices):
            raise ValueError(f"label {label} of {len(choices)} choices")
    json.dumps(fields, ensure_ascii=False).encode("utf-8")  # lone surrogates: bytes that were not UTF-8
    return fields


def _shown(raw: Any) -> str:
    return (raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=True, default=str))[:2000]
