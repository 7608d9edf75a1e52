"""Checkpoints of a run with several trainers (PPO's policy and value function), whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from ._contracts.errors import UserError
from ._contracts.manifest import write_atomic
from ._contracts.stage import Run
from .engine import Trainer, checkpoint

LogRow = dict[str, float]


class Progress:
    """The checkpoints of one run: trainers, log and what else must come back."""

    def __init__(self, run: Run, trainers: dict[str, Trainer]):
        self.run = run
        self.root = run.work / "checkpoints"
        self.trainers = trainers

    def load(self) -> tuple[int, list[LogRow], dict]:
        """Bring the trainers back to the newest good checkpoint: (finished steps, log, state); (0, [], {}) if none."""
        self.root.mkdir(exist_ok=True)
        found = checkpoint.newest_good(self.root, self.run.log)
        if found is None:
            return 0, [], {}
        for name, trainer in self.trainers.items():
            trainer.load(found / name)
        saved = json.loads((found / "progress.json").read_text())
        self.run.log(f"going on after step {saved['step']}")
        return saved["step"], saved["log"], saved["state"]

    def save(self, step: int, log: list[LogRow], state: dict | None = None) -> None:
        """Make a checkpoint of the state after `step` steps; the newest two are kept."""

        def write(folder: Path) -> None:
            for name, trainer in self.trainers.items():
                trainer.save(folder / name)
            saved = {"step": step, "log": log, "state": state or {}}
            write_atomic(folder / "progress.json", json.dumps(saved))

        checkpoint.save_step(self.root, step, write)


def finite(row: LogRow) -> LogRow:
    """The row, if every figure is a number.

    Raises:
        UserError: naming the figure and the step.
    """
    for name, value in row.items():
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise UserError(f"{name} is {value} at step {row['step']}: training came apart; lower the learning rate")
    return row
