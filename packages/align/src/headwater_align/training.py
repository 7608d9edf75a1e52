"""What SFT and reward training share: a fixed plan of batches, a log, checkpoints, exact resume.

The plan (which rows make which step) follows from seed and rows alone, so a run that was killed finds its place by
the number of finished steps, and goes on from its newest good checkpoint with the very steps that would have come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ._contracts.errors import UserError
from ._contracts.manifest import write_atomic
from ._contracts.stage import Run
from .engine import Trainer, checkpoint

LogRow = dict[str, float]


class Progress:
    """The checkpoints of one run: trainers, log and what else must come back, whole or not at all."""

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


def fit(
    run: Run,
    trainer: Trainer,
    plan: Sequence[Sequence[int]],
    collate: Callable[[Sequence[int]], list[dict]],
    loss_fn: Callable,
    evaluate: Callable[[], LogRow],
    evaluate_every: int,
) -> list[LogRow]:
    """Train through the plan and return the log: a row a step, and one wherever `evaluate` was called.

    Args:
        plan: one list of row numbers a step.
        collate: row numbers -> micro-batches for `Trainer.step`.
        evaluate: held-out figures; called before the first step, every `evaluate_every` steps, and at the end.
    """
    progress = Progress(run, {"model": trainer})
    done, log, _ = progress.load()
    if done == 0:
        log.append({"step": 0, **evaluate()})
    for step, rows in enumerate(plan[done:], start=done + 1):
        figures = trainer.step(collate(rows), loss_fn)
        log.append(finite({"step": step, **figures}))
        if step % evaluate_every == 0 or step == len(plan):
            log.append({"step": step, **evaluate()})
        if step % run.config.checkpoint_every == 0 and step < len(plan):
            progress.save(step, log)
        if step % run.config.log_every == 0:
            run.progress(f"step {step}/{len(plan)}, loss {figures['loss']:.4f}")
    run.log("; ".join(f"{name} {log[0][name]:.4f} -> {log[-1][name]:.4f}" for name in log[0] if name != "step"))
    return log


def finite(row: LogRow) -> LogRow:
    """The row, if every figure is a number.

    Raises:
        UserError: naming the figure and the step.
    """
    for name, value in row.items():
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise UserError(f"{name} is {value} at step {row['step']}: training came apart; lower the learning rate")
    return row


def write_jsonl(path: Path, rows: Sequence[dict]) -> None:
    """One JSON object a line."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
