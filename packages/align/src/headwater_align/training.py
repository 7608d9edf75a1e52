"""What SFT, reward model and DPO share: a fixed plan of batches, trained by headwater-model's loop.

The plan (which rows make which step) follows from seed and rows alone. The loop brings what pre-training has: loss
spikes met by a policy, checkpoints beside training, exact resume also on another layout, a flight log, steering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import job, jsonl, ranks
from ._contracts.errors import UserError
from ._contracts.manifest import write_atomic
from ._contracts.stage import Run
from .engine import (
    Batch,
    Event,
    FlightLog,
    Loaded,
    Loop,
    Loss,
    Onlooker,
    Policy,
    RunConfig,
    Saver,
    Settings,
    Trainer,
    adapters_of,
    checkpoint,
    make_trainer,
    resolved,
    torch,
)

UNCOUNTED = "uncounted"
"""Key of a micro-batch that only keeps a rank in step: nothing of it counts."""


@dataclass(frozen=True)
class Plan:
    """A task of the loop (`headwater_model.task.Task`); a place of its order is one step's batch."""

    batches: Sequence[Sequence[int]]
    """Row numbers, a list a step. After a rollback the plan begins anew where it ends."""
    lengths: Sequence[int]
    """Tokens of each row."""
    collate: Callable[[Sequence[int]], list[dict]]
    """Row numbers -> micro-batches for `Trainer.step`."""
    objective: Loss
    heldout: int
    """Number of held-out rows."""
    collate_heldout: Callable[[Sequence[int]], list[dict]]

    def size(self, settings: Settings, consumed: int) -> int:
        """One batch a step."""
        return 1

    def draw(self, first: int, size: int) -> list[dict]:
        """This data rank's share of the batch."""
        return _share(self.batches[first % len(self.batches)], self.collate)

    def tokens(self, first: int, size: int) -> int:
        """Of the whole batch."""
        return sum(self.lengths[row] for row in self.batches[first % len(self.batches)])

    @property
    def loss(self) -> Loss:
        """The objective; 0 for micro-batches that do not count."""

        def loss(output: Any, batch: Batch) -> tuple[Any, Any, dict[str, Any]]:
            total, count, metrics = self.objective(output, batch)
            if UNCOUNTED in batch:
                none = {k: tuple(0 * part for part in v) if isinstance(v, tuple) else 0 * v for k, v in metrics.items()}
                return 0 * total, 0 * count, none
            return total, count, metrics

        return loss

    def mean(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The figures of several steps, each weighed by its step's count."""
        total = sum(row["count"] for row in rows)
        names = [name for name in rows[0] if name not in ("count", "lr", "grad_norm")]
        return {name: sum(row[name] * row["count"] for row in rows) / total for name in names}

    def validate(self, trainer: Trainer) -> dict[str, Any]:
        """Loss and the objective's metrics over the held-out rows."""
        row = trainer.evaluate(_share(range(self.heldout), self.collate_heldout), self.loss)
        return {f"heldout_{name}": value for name, value in row.items() if name != "count"}


def _share(rows: Sequence[int], collate: Callable[[Sequence[int]], list[dict]]) -> list[dict]:
    """Micro-batches of every n-th row for the n-th data rank; where there are too few rows, one that does not count."""
    mine = ranks.share(rows)
    if mine:
        return collate(mine)
    return [{**piece, UNCOUNTED: torch.ones(1)} for piece in collate(list(rows)[:1])]


def fit(
    run: Run, settings: RunConfig, trainer: Trainer, loaded: Loaded, plan: Plan, rank_files: Path | None
) -> list[dict[str, Any]]:
    """Train through the plan, or go on with it; collective.

    Writes log.jsonl (a row every `log_every` steps, one with held-out figures at the start, every `validate_every`
    steps and at the end) and flight.jsonl, what the policy on spikes or a person changed, into `run.out`.

    Args:
        rank_files: for the watchdog; None outside of a launcher.

    Returns:
        the rows of log.jsonl.

    Raises:
        UserError: the run diverged beyond help.
        SystemExit: SIGTERM came; a checkpoint of the last step is there (143).
    """
    steps = len(plan.batches)
    flight = FlightLog(run.work, writes=ranks.is_first())

    def tell(event: dict[str, Any]) -> None:
        flight.note(event)
        if event["what"] != "checkpoint":
            run.log(f"step {event['step']}: {event['what']}: {event['why']}")

    now = Settings(
        optimizer=trainer.optimizer_config,
        schedule=trainer.schedule,
        batch=len(plan.batches[0]),
        activation=loaded.config.activation,
    )
    onlooker = Onlooker(
        settings, loaded.config, trainer, loaded.tokenizer, steps, f"{run.stage.name}-{run.fingerprint}", run.log,
        run.progress, rank_files, ranks.is_first(),
    )  # fmt: skip
    policy = Policy(settings.spikes) if settings.spikes else None
    planned: list[Event] = []
    saver = Saver(run.work / "checkpoints", settings.checkpoints, tell, resolved(loaded.config))
    loop = Loop(trainer, plan, now, settings, steps, run.work, planned, flight, policy, saver, onlooker, run.log)
    found = checkpoint.newest_good(run.work / "checkpoints", run.log)
    if found is not None:
        checkpoint.refuse_other(found, resolved(loaded.config))
        loop.resume(found)
    with onlooker.watching(loop.curve.rows):
        loop.run()
    run.measured.update(onlooker.measured())
    if ranks.is_first():
        loop.curve.write(run.out)
        write_atomic(run.out / "flight.jsonl", loop.flight.text())
    return loop.curve.rows


def learn(
    run: Run, settings: RunConfig, loaded: Loaded, plan: Plan, rank_files: Path | None, validate_every: int = 0
) -> None:
    """Train a loaded model, or adapters beside it, through the plan by the config's optimiser, and leave its weights
    where `job.trained` finds them; collective.

    Args:
        validate_every: steps between held-out figures; 0: once an epoch.
    """
    config = run.config
    adapters = adapters_of(config, run.stage.name)
    trainer = make_trainer(loaded.model, config.optimizer, len(plan.batches), adapters, config.seed)
    every = validate_every or -(-len(plan.batches) // config.epochs)
    fit(run, settings.model_copy(update={"validate_every": every}), trainer, loaded, plan, rank_files)
    job.leave_weights(run, model=trainer)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of log.jsonl."""
    return jsonl.read(folder / "log.jsonl")


def first_and_last(log: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """A figure of the log before and after training.

    Raises:
        UserError: no row has it.
    """
    found = [row[name] for row in log if name in row]
    if not found:
        raise UserError(f"log.jsonl has no {name}: the run is not whole; start the stage again")
    return found[0], found[-1]
