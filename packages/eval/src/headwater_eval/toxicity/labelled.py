"""Labelled texts out of sources: what a classifier is trained and measured on."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .._contracts.errors import UserError
from ..config import LabelledConfig


@dataclass(frozen=True)
class Labelled:
    """Texts of one entry of `toxicity.labelled`, each once, with labels in [0, 1]."""

    name: str
    texts: list[str]
    labels: list[float]
    split: list[str]
    """train, calibrate or test, of each text by its hash; all test where the entry only measures."""


def labelled_texts(sources: Path, name: str, config: LabelledConfig, seed: int) -> Labelled:
    """The texts of every file that an entry names.

    Raises:
        UserError: no such file, or none of its rows has a text and a label.
    """
    files = sorted(p for p in sources.rglob("*") if p.is_file() and p.relative_to(sources).match(config.files))
    if not files:
        raise UserError(
            f"data for {name} not found: no source in {sources} holds {config.files}; add one to collect.sources, or "
            f"take the entry out by toxicity.labelled.{name}: null"
        )
    found: dict[str, float] = {}
    for path in files:
        for row in _rows(path, config.delimiter):
            text, label = _value(row, config.text), config.label if config.label is not None else _label(row, config)
            if isinstance(text, str) and text.strip() and label is not None:
                words = text.split()
                cut = " ".join(words[: config.words] if config.words else words)
                found.setdefault(cut, label)
    if not found:
        raise UserError(
            f"{files[0]}: no row has a text in {config.text} and a label from 0 to 1 in {config.score}; "
            f"check toxicity.labelled.{name}"
        )
    ranked = sorted(found, key=lambda text: _digest(seed, text))[: config.limit]
    split = [_split(seed, text) if config.train else "test" for text in ranked]
    return Labelled(name, ranked, [found[text] for text in ranked], split)


def _rows(path: Path, delimiter: str) -> Iterator[dict]:
    if path.suffix == ".parquet":
        yield from pq.read_table(path).to_pylist()
    elif path.suffix in (".jsonl", ".json", ".ndjson"):
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(row, dict):
                        yield row
    else:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as f:
            yield from csv.DictReader(f, delimiter=delimiter)


def _value(row: dict, dotted: str) -> Any:
    value: Any = row
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _label(row: dict, config: LabelledConfig) -> float | None:
    try:
        label = float(_value(row, config.score))
    except (TypeError, ValueError):
        return None
    return label if 0 <= label <= 1 else None


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}/{text}".encode("utf-8", "surrogatepass")).hexdigest()


def _split(seed: int, text: str) -> str:
    """8 of 10 texts train, 1 calibrates, 1 tests."""
    draw = int(_digest(seed + 1, text)[:8], 16) % 10
    return "calibrate" if draw == 8 else "test" if draw == 9 else "train"
