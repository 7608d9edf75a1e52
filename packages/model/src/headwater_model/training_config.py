"""How a model is trained: layout, optimiser, schedule; contradictions end here, before anything runs."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ._contracts.config import Config
from .model_config import ModelConfig


class ParallelConfig(Config):
    """How the ranks share the work; ranks = tensor x pipeline x context x data."""

    tensor: int = Field(1, ge=1, description="ranks that split each matrix")
    pipeline: int = Field(1, ge=1, description="ranks that split the layers")
    chunks: int = Field(1, ge=1, description="parts of the layers a pipeline rank holds; above 1: interleaved schedule")
    context: int = Field(1, ge=1, description="ranks that split each sequence")
    data: int = Field(1, ge=1, description="ranks that split the batch")
    sequence: bool = Field(False, description="tensor ranks also split positions outside of matrix products")
    zero: Literal[0, 1] = Field(0, description="1: data and context ranks share the optimiser's state (ZeRO-1)")
    recompute: Literal["none", "selective", "full"] = Field(
        "none", description="activations computed again in the backward pass: those of attention, or whole layers"
    )
    overlap_grad_reduce: bool = Field(False, description="sum gradients over data ranks during the backward pass")
    overlap_param_gather: bool = Field(False, description="gather ZeRO's weights during the next forward pass")

    @model_validator(mode="after")
    def _possible(self) -> ParallelConfig:
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence needs tensor above 1: it is the tensor ranks that split the positions")
        if self.chunks > 1 and self.pipeline == 1:
            raise ValueError(f"chunks {self.chunks} needs pipeline above 1")
        if self.overlap_param_gather and not (self.zero and self.overlap_grad_reduce):
            raise ValueError("overlap_param_gather needs zero 1 and overlap_grad_reduce")
        return self

    @property
    def ranks(self) -> int:
        """Processes needed."""
        return self.tensor * self.pipeline * self.context * self.data

    @property
    def position_parts(self) -> int:
        """What every sequence length must be a multiple of.

        A context rank takes two pieces of a sequence, an early and a late one, so that causal attention costs each
        the same; under `sequence` the tensor ranks split what it takes.
        """
        parts = 2 * self.context if self.context > 1 else 1
        shared = self.context * self.tensor if self.sequence else 1
        return math.lcm(parts, shared)

    def check(self, model: ModelConfig) -> None:
        """Raise ValueError where this layout does not divide the model."""
        uneven = [
            (model.key_value_heads, self.tensor, "kv_heads", "parallel.tensor"),
            (model.ffn_width, self.tensor, "ffn", "parallel.tensor"),
            (model.vocab, self.tensor, "vocab", "parallel.tensor"),
            (model.layers, self.pipeline, "layers", "parallel.pipeline"),
            (model.layers, self.pipeline * self.chunks, "layers", "parallel.pipeline x chunks"),
            (model.context, self.position_parts, "context", self._splitters),
        ]
        for value, parts, name, over in uneven:
            if value % parts:
                raise ValueError(f"{name} {value} is no multiple of {over} {parts}")
        if self.tensor > 1 and model.experts:
            raise ValueError("experts need parallel.tensor 1: Megatron splits them with sequence parallelism only")

    def check_batch(self, microbatches: int) -> None:
        """Raise ValueError where a step of so many micro-batches a data rank can't be run: interleaving takes them
        in groups of as many as there are pipeline ranks (Megatron-LM, arXiv:2104.04473, section 2.2)."""
        if self.chunks > 1 and microbatches % self.pipeline:
            raise ValueError(
                f"{microbatches} micro-batches a step are no multiple of parallel.pipeline {self.pipeline}, "
                "as parallel.chunks needs; change the batch or micro_batch"
            )

    @property
    def _splitters(self) -> str:
        return "parallel.context x tensor" if self.sequence else "2 x parallel.context"


class BatchRampConfig(Config):
    """A batch that grows: `start` sequences at first, `increment` more at equal intervals of `samples` in all."""

    start: int = Field(ge=1, description="sequences in the first step's batch")
    increment: int = Field(ge=1, description="sequences by which the batch grows at a time")
    samples: int = Field(ge=1, description="sequences read by the time the batch has its full size")

    def check(self, final: int, multiple: int) -> None:
        """Raise ValueError where the ramp doesn't lead to a batch of `final` or can't be cut.

        Args:
            multiple: sequences that all data ranks take at once: micro_batch x parallel.data (and x
                parallel.pipeline with chunks).
        """
        if self.start > final or (final - self.start) % self.increment:
            raise ValueError(f"ramp: from {self.start} in steps of {self.increment} no batch of {final} is reached")
        if uneven := next((n for n in (self.start, self.increment) if n % multiple), None):
            raise ValueError(f"ramp: {uneven} sequences are no multiple of the {multiple} that the ranks take at once")

    def batch_size(self, consumed: int, final: int) -> int:
        """Sequences in the next step's batch, after `consumed` sequences; Megatron's rule, linear in samples.

        Args:
            final: the full size.
        """
        grown = (final - self.start) // self.increment
        if not grown or consumed > self.samples:
            return final
        return self.start + int(consumed / (self.samples / grown)) * self.increment


class OptimizerConfig(Config):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) or Muon, with gradient clipping."""

    kind: Literal["adamw", "muon"] = Field("adamw", description="muon: for hidden matrices, AdamW for the rest")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean of the gradient")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the mean of its square")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.1, ge=0, description="decoupled decay of matrices; norms are left alone")
    clip: float = Field(1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")


class ScheduleConfig(Config):
    """The learning rate over steps: linear warm-up, then the decay named, to `floor` of the peak."""

    kind: Literal["cosine", "linear", "wsd", "constant"] = Field("cosine", description="shape after the warm-up")
    warmup: int = Field(0, ge=0, description="steps from 0 to the peak")
    steps: int = Field(1000, ge=1, description="steps in all")
    floor: float = Field(0.0, ge=0, le=1, description="last learning rate as a fraction of the peak")
    decay: int = Field(0, ge=0, description="wsd: steps of the final decay, whose shape is 1 - sqrt")

    @model_validator(mode="after")
    def _fits(self) -> ScheduleConfig:
        if self.warmup >= self.steps and self.kind != "constant":
            raise ValueError(f"warmup {self.warmup} leaves nothing of {self.steps} steps")
        if self.kind == "wsd" and not 0 < self.decay <= self.steps - self.warmup:
            raise ValueError(f"wsd needs 1 to {self.steps - self.warmup} steps of decay, not {self.decay}")
        return self


class TrackingConfig(Config):
    """Where a run is watched. No part of the run's identity: changing it does not train again."""

    to: list[Literal["dvclive", "tensorboard", "wandb"]] = Field(
        ["dvclive"], description="trackers; TensorBoard and W&B are extras of the package"
    )
    folder: str = Field("runs/live", description="where they write, each in a folder of its own")
    project: str = Field("headwater", description="W&B's project")
    wandb_mode: Literal["offline", "online"] = Field("offline", description="offline: `wandb sync` sends it later")
    samples_every: int = Field(0, ge=0, description="steps between samples of text; 0: none")
    prompts: list[str] = Field(["The", "In 1905,"], description="what the samples go on from")
    sample_tokens: int = Field(48, ge=1, description="new tokens a sample, the likeliest each time")
