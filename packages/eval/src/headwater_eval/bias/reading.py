"""How the files of bias tests become items: rows with their numbers, and a reason for every row that is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import readers
from ..readers import Fields, Rows

Numbered = tuple[int, Any]
"""1-based number of a row, and the row."""


def items_of(rows: Iterable[Numbered], parse: Callable[[Any], Fields]) -> Rows:
    """Fields of each row, or the row set aside with its reason: what `parse` raises (KeyError, ValueError, ...)."""
    return readers.items_of(rows, lambda raw: _checked(parse(raw)))


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
    """As `readers.check`, of items that may have neither choices nor answers: prompts to write on from."""
    if not fields["text"].strip():
        raise ValueError("empty")
    if "choices" in fields:
        readers.check_choices(fields["choices"], fields["label"])
    readers.check_text(fields)
    return fields
