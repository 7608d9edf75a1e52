"""How a model is trained: layout, optimiser, schedule; contradictions end here, before anything runs."""

from __future__ import annotations

import math
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
        if self.pipeline > 1 and model.kind in ("encoder_decoder", "encoder"):
            raise ValueError(f"kind {model.kind} needs parallel.pipeline 1")
        if self.tensor > 1 and model.experts:
            raise ValueError("experts need parallel.tensor 1: Megatron splits them with sequence parallelism only")


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


class ObjectiveConfig(Config):
    """What is taken out of a window of text, for the kinds of model that restore it (see `objectives`)."""

    rate: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are masked or taken out")
    mean_span: float = Field(3.0, ge=1, description="encoder_decoder: tokens of a span that is taken out, on average")


class DataConfig(Config):
    """What is read in training: which sources, in which shares, and whether documents see each other."""

    weights: dict[str, float] | None = Field(
        None,
        description="share of the tokens of each source, in any unit (0.3, or 30): SOURCE of a tokens artefact, INPUT "
        "for all of one, INPUT/SOURCE where two have that source; what is not named is left out; null: everything, in "
        "proportion to its tokens",
    )
    document_mask: bool = Field(
        False, description="attend within a document only, positions counted from its start; false: across the joints"
    )

    @model_validator(mode="after")
    def _weighable(self) -> DataConfig:
        if self.weights is None:
            return self
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"weights.{name} is {weight}; a weight is 0 or more")
        if not any(self.weights.values()):
            raise ValueError("weights: at least one must be above 0; null reads everything in proportion to its tokens")
        return self
