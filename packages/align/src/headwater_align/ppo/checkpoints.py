"""Checkpoints of a run with two trainers, policy and value function: whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import ranks
from .._contracts.manifest import write_atomic
from ..engine import RunConfig, Trainer, checkpoint
from .experience import LogRow

PLACE = "place.json"


@dataclass
class Place:
    """Where a run stands, beside what the trainers themselves hold; in every checkpoint."""

    kl_coef: float
    step: int = 0
    """Steps done."""
    turn: int = 0
    """Batches of prompts that were learnt from or passed over."""
    rollbacks: int = 0
    tokens: int = 0
    """Sampled tokens learnt from."""
    skipped: int = 0
    """Updates left out."""
    log: list[LogRow] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    guard: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run under `root`; every method is collective."""

    def __init__(self, root: Path, trainers: Mapping[str, Trainer], settings: RunConfig):
        """
        Args:
            trainers: name -> trainer, each saved in a folder of its name.
        """
        self.root, self.trainers, self.keep = root, trainers, settings.checkpoints.last
        root.mkdir(parents=True, exist_ok=True)

    def save(self, place: Place) -> None:
        """The state after `place.step` steps."""

        def write(folder: Path) -> None:
            for name, trainer in self.trainers.items():
                trainer.save(folder / name)
            if ranks.is_first():
                write_atomic(folder / PLACE, json.dumps(asdict(place)))

        checkpoint.save_step(self.root, place.step, write, self.keep)

    def load(self, folder: Path) -> Place:
        """Bring the trainers back to a checkpoint."""
        for name, trainer in self.trainers.items():
            trainer.load(folder / name)
        return Place(**json.loads((folder / PLACE).read_text()))

    def steps(self) -> list[int]:
        """Steps of the checkpoints there, oldest first."""
        return ranks.from_first([checkpoint.step_of(folder) for folder in checkpoint.steps(self.root)])

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, of a branch that was given up."""
        if ranks.is_first():
            for folder in checkpoint.steps(self.root):
                if checkpoint.step_of(folder) > step:
                    shutil.rmtree(folder)
        ranks.barrier()
