"""The loss curve of a run: rows of training, averaged over some steps, and rows of validation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._contracts import manifest as artefacts

NAME = "log.jsonl"


class Curve:
    """Kept by every rank, written by one. Rows have "step"; those of training "loss", of validation "heldout_loss"."""

    def __init__(self, log_every: int, mean: Callable[[Sequence[Mapping[str, float]]], dict[str, float]]):
        """
        Args:
            log_every: steps a row of training.
            mean: what those steps gave -> the row's losses.
        """
        self.log_every, self._mean = log_every, mean
        self.rows: list[dict[str, Any]] = []
        self._waiting: list[dict[str, float]] = []

    def train(self, step: int, tokens: int, row: dict[str, float], last: bool) -> dict[str, Any] | None:
        """Take what one step gave; every `log_every` steps, and at the last, answer the row that it makes."""
        self._waiting.append(row)
        if step % self.log_every and not last:
            return None
        means, self._waiting = self._mean(self._waiting), []
        return self.add({"step": step, "tokens": tokens, **means, "lr": row["lr"], "grad_norm": row["grad_norm"]})

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep one row, and answer it."""
        self.rows.append(row)
        return row

    def waiting(self) -> list[dict[str, float]]:
        """What is not in a row yet: a checkpoint keeps it, so that a resumed run averages the same."""
        return self._waiting

    def go_back(self, step: int, waiting: list[dict[str, float]]) -> None:
        """Forget what came after `step`; `waiting` is what waited then."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        self._waiting = list(waiting)

    def read(self, folder: Path) -> None:
        """Take the rows that `write` left."""
        path = folder / NAME
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write(self, folder: Path) -> None:
        """All rows as JSON lines."""
        artefacts.write_atomic(folder / NAME, "".join(json.dumps(row) + "\n" for row in self.rows))
