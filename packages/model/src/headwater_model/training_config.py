"""How a model is trained: layout, optimiser, schedule; contradictions end here, before anything runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ._contracts.config import Config
from .model_config import ModelConfig


class ParallelConfig(Config):
    """How the ranks share the work; ranks = tensor x pipeline x data."""

    tensor: int = Field(1, ge=1, description="ranks that split each matrix")
    pipeline: int = Field(1, ge=1, description="ranks that split the layers")
    data: int = Field(1, ge=1, description="ranks that split the batch")

    @property
    def ranks(self) -> int:
        """Processes needed."""
        return self.tensor * self.pipeline * self.data

    def check(self, model: ModelConfig) -> None:
        """Raise ValueError where this layout does not divide the model."""
        uneven = [
            (model.key_value_heads, self.tensor, "kv_heads", "tensor"),
            (model.ffn_width, self.tensor, "ffn", "tensor"),
            (model.vocab, self.tensor, "vocab", "tensor"),
            (model.layers, self.pipeline, "layers", "pipeline"),
        ]
        for value, parts, name, over in uneven:
            if value % parts:
                raise ValueError(f"{name} {value} is no multiple of parallel.{over} {parts}")
        if self.pipeline > 1 and model.tie_embeddings:
            raise ValueError("tie_embeddings needs parallel.pipeline 1: the two tables lie on different ranks")


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


class CheckpointConfig(Config):
    """How checkpoints are written and which of them stay."""

    asynchronous: bool = Field(True, description="write beside training, from a copy of the state in memory")
    last: int = Field(2, ge=1, description="newest checkpoints that stay")
    every: int | None = Field(None, ge=1, description="checkpoints of every so many steps stay for good; null: none")
    best: int = Field(0, ge=0, description="checkpoints of the lowest held-out losses that stay")
    failures: int = Field(3, ge=1, description="failed writes in a row that end the run")


class RestartConfig(Config):
    """What the launcher does when a rank dies, and when a rank counts as hung."""

    restarts: int = Field(10, ge=0, description="restarts in a row without a step further than before")
    backoff_s: float = Field(1.0, ge=0, description="seconds before the first of them; doubled each time")
    backoff_max_s: float = Field(60.0, ge=0, description="seconds at most")
    hang_factor: float = Field(20.0, gt=1, description="a rank hangs when a step takes so many times the median step")
    hang_floor_s: float = Field(120.0, gt=0, description="and no less than so many seconds")
    hang_start_s: float = Field(1800.0, gt=0, description="seconds until the first steps, and for long work between")


class SpikeConfig(Config):
    """When loss or gradient norm count as a spike, and what is then done, in order of severity."""

    window: int = Field(128, ge=8, description="steps that say what is usual")
    warmup: int = Field(64, ge=4, description="steps before anything but NaN and infinity counts as a spike")
    deviations: float = Field(6.0, gt=0, description="robust standard deviations above the median that are a spike")
    drift_window: int = Field(32, ge=4, description="steps whose median loss is compared with the lowest such median")
    drift: float = Field(0.2, gt=0, description="share by which it may lie above before the run counts as diverging")
    measures: tuple[Literal["skip", "rollback", "lower_lr", "stop"], ...] = Field(
        ("skip", "rollback", "lower_lr", "stop"), min_length=1, description="measures, mildest first"
    )
    period: int = Field(1000, ge=1, description="steps over which measures are counted")
    skips: int = Field(4, ge=1, description="batches skipped in a period before the next measure")
    rollbacks: int = Field(2, ge=1, description="rollbacks in a period before the next measure")
    lower_lrs: int = Field(3, ge=1, description="reductions of the learning rate in a period before the next measure")
    back: int = Field(1, ge=1, description="checkpoints to go back, and so many more each further time in a period")
    skip_after: int = Field(
        0, ge=0, description="batches left out after the spike's, beside those since the checkpoint"
    )
    lr_factor: float = Field(0.7, gt=0, lt=1, description="what the learning rate is multiplied with")

    @model_validator(mode="after")
    def _ordered(self) -> SpikeConfig:
        order = ("skip", "rollback", "lower_lr", "stop")
        if list(self.measures) != sorted(set(self.measures), key=order.index):
            raise ValueError(f"measures must be some of {', '.join(order)}, in this order, each once")
        if self.warmup > self.window:
            raise ValueError(f"warmup {self.warmup} is more than the window {self.window} holds")
        return self
