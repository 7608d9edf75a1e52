"""What a run learns and how it is examined: what the loop asks of any task, and pre-training's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import headwater_model.cpu as cpu  # noqa: F401

from megatron.core import parallel_state
from tokenizers import Tokenizer

from . import objectives
from ._contracts import manifest as artefacts
from .config import ModelConfig, PretrainConfig
from .decentralised import exchange
from .heldout import HeldOut
from .pretrained import end_of_text, read_tokenizer
from .source_loss import mean_by_source, per_source_loss
from .steering import Settings
from .tokens import TrainingData
from .trainer import Batch, Loss, Trainer

OTHERS = ("plan", "tokenizer", "start", "flight")
"""Inputs of the stage that hold no tokens."""
SPARE = 0.1
"""Share of the run by which the order of the data is longer than the plan: rollbacks pass over batches."""


def token_inputs(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """The tokens artefacts among the inputs, "tokens" first."""
    return {name: folder for name, folder in inputs.items() if name not in OTHERS}


class Task(Protocol):
    """What the loop asks for at each step. A task has an order of places, of which each step takes the next ones."""

    def size(self, settings: Settings, consumed: int) -> int:
        """Places that the next step takes, after `consumed`."""
        ...

    def draw(self, first: int, size: int) -> Sequence[Batch]:
        """This data-parallel rank's micro-batches of the step that begins at place `first`."""
        ...

    def tokens(self, first: int, size: int) -> int:
        """Tokens that all ranks read in that step."""
        ...

    @property
    def loss(self) -> Loss:
        """As `Trainer.step` takes it."""
        ...

    def mean(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """What several steps gave as one row of the curve; with "loss"."""
        ...

    def validate(self, trainer: Trainer) -> dict[str, Any]:
        """Held-out figures; with "heldout_loss"."""
        ...


@dataclass
class Pretraining:
    """Training data by weight, held-out sets, and the objective."""

    config: PretrainConfig
    context: int
    """Tokens of text a sequence."""
    tokenizer: Tokenizer
    data: TrainingData
    heldout: dict[str, HeldOut]
    """By input; "tokens" is the one that counts."""
    inputs: dict[str, Path]
    in_bytes: bool
    """Whether the objective predicts every token, so that its loss is one of bits per byte."""
    replica: int = 0
    """Which of those of local SGD this process belongs to."""

    def draw(self, first: int, size: int) -> Sequence[Batch]:
        """This data-parallel rank's micro-batches of the step that begins at place `first` of the order; none where
        workers read them."""
        if self.config.asynchronous:
            return ()
        rank, ranks = self._part
        return self.data.batch(first, size, self.config.micro_batch, rank, ranks)

    def tokens(self, first: int, size: int) -> int:
        """Those of so many sequences."""
        return size * self.context

    def size(self, settings: Settings, consumed: int) -> int:
        """Sequences of the next step."""
        ramp = self.config.ramp
        return ramp.batch_size(consumed, settings.batch) if ramp else settings.batch

    @property
    def loss(self) -> Loss:
        """With the loss of each source beside, where there are several."""
        return per_source_loss(self.data.names)

    def mean(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The losses of several steps as one row."""
        total = sum(row["count"] for row in rows)
        mean = sum(row["loss"] * row["count"] for row in rows) / total
        by_source = mean_by_source(rows, self.data.names) if len(self.data.names) > 1 else {}
        return {"loss": mean, **by_source, **exchange.of_steps(rows)}

    def validate(self, trainer: Trainer) -> dict[str, Any]:
        """Held-out loss, and bits per byte, of each set, and by source of the first."""
        rank, ranks = self._part
        found: dict[str, Any] = {}
        for name, heldout in self.heldout.items():
            row = trainer.evaluate(
                heldout.batches(self.config.micro_batch, rank, ranks), per_source_loss(heldout.names)
            )
            prefix = "heldout" if not found else f"heldout_{name}"
            found[f"{prefix}_loss"] = row["loss"]
            if self.in_bytes:
                found[f"{prefix}_bits_per_byte"] = heldout.bits_per_byte(row["loss"])
            if prefix == "heldout" and len(heldout.names) > 1:
                figure = "bits_per_byte" if self.in_bytes else "loss"
                found["heldout_by_source"] = {n: told[figure] for n, told in heldout.by_source(row).items()}
        return found

    @property
    def _part(self) -> tuple[int, int]:
        """Which part of what all replicas and data ranks split is this rank's, and of how many."""
        data = self.config.parallel.data
        replicas = self.config.local.replicas if self.config.local else 1
        return self.replica * data + parallel_state.get_data_parallel_rank(), replicas * data

    def identity(self) -> dict[str, Any]:
        """Which data this is, for the final state."""
        return {
            "seed": self.config.seed,
            "tokens": {name: artefacts.manifest_hash(path) for name, path in self.inputs.items()},
        }

    def metrics(self, consumed: int) -> dict[str, Any]:
        """What was read how often, and how large the held-out text is."""
        first = next(iter(self.heldout.values()))
        sizes = {"heldout_tokens": first.tokens, "heldout_bytes": first.bytes}
        return {"read": self.data.counts(consumed), **sizes}

    def report_read(self, consumed: int, log: Callable[[str], None]) -> None:
        """Say what was read more than once."""
        for name, read in self.data.counts(consumed).items():
            if read["tokens_repeated"]:
                log(f"{name} was read {read['epochs']:.2f} times")


def build_task(
    config: PretrainConfig,
    model: ModelConfig,
    inputs: Mapping[str, Path],
    batch: int,
    steps: int,
    cache: Path,
    log: Callable[[str], None],
    replica: int = 0,
) -> Pretraining:
    """Open the data of a run; collective.

    Args:
        inputs: of the stage.
        batch: sequences a step, the final ones of a ramp.
        cache: for the index of the order.
        replica: see `Pretraining`.
    """
    tokenizer = read_tokenizer(inputs["tokenizer"])
    document_end = end_of_text(tokenizer, inputs["tokenizer"])
    tokens = token_inputs(inputs)
    objective = objectives.build(model, config.objective, config.data, config.seed, tokenizer, document_end)
    context = objective.window - 1 if objective else model.context
    data = TrainingData(
        tokens, config.data, context, round(steps * batch * (1 + SPARE)), config.seed, document_end, cache, objective
    )
    for line in data.report(steps * batch):
        log(line)
    heldout = {
        name: HeldOut(
            folder, context, tokenizer, document_end, config.heldout_tokens, config.data.document_mask, objective
        )
        for name, folder in tokens.items()
    }
    return Pretraining(config, context, tokenizer, data, heldout, tokens, objective is None, replica)
