"""How long training stands still for a checkpoint: written beside training, against written at once by the same code.

A GPT with 33.9M parameters in bfloat16 with float32 masters and AdamW, one rank, one thread, local disk; files are
flushed and hashed both ways. The second row is what the writing thread costs the steps beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import headwater_model.cpu  # noqa: F401

import torch

from benchmarks.frame import Row, lower_is_better
from headwater_model import runtime
from headwater_model.config import CheckpointConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from headwater_model.gpt import build
from headwater_model.saver import Saver
from headwater_model.trainer import Trainer, next_token_loss

SHAPE = ModelConfig(layers=8, hidden=512, heads=8, vocab=8192, context=512)


def run(quick: bool) -> list[Row]:
    """Medians over checkpoints, the two ways in turn."""
    torch.set_num_threads(1)
    runtime.initialize(seed=1)
    shape = ModelConfig(layers=2, hidden=64, heads=2, vocab=512, context=64) if quick else SHAPE
    trainer = Trainer(build(shape, torch.bfloat16, seed=1), OptimizerConfig(), ScheduleConfig(steps=1000))
    ids = torch.randint(shape.vocab, (2, shape.context + 1), generator=torch.Generator().manual_seed(1))
    batch = {"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}

    def step() -> float:
        return _seconds(lambda: trainer.step([batch], next_token_loss))

    step()
    stall: dict[bool, list[float]] = {True: [], False: []}
    beside: list[float] = []
    alone: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        savers = {way: Saver(Path(folder) / str(way), CheckpointConfig(asynchronous=way), _ignore, {}) for way in stall}
        for _ in range(1 if quick else 5):
            for way, saver in savers.items():
                stall[way].append(_seconds(lambda: saver.save(trainer.step_count, trainer.state)))  # noqa: B023
                (beside if way else alone).append(step())
                saver.wait()
    how = f"{shape.parameters / 1e6:.1f}M parameters, one thread, median of {len(alone)}"
    return [
        _row("a checkpoint, training stands still", stall[True], "written at once", stall[False], how),
        _row("a step", beside, "without a checkpoint beside it", alone, how),
    ]


def _row(work: str, ours: list[float], peer: str, figures: list[float], how: str) -> Row:
    return lower_is_better(work, "s wall", statistics.median(ours), peer, "", statistics.median(figures), None, how)


def _seconds(work: Callable[[], object]) -> float:
    since = time.monotonic()
    work()
    return time.monotonic() - since


def _ignore(event: dict) -> None:
    pass
