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


class LocalSGDConfig(Config):
    """Replicas that train alone and meet every few steps: DiLoCo (Douillard et al. 2023, arXiv:2311.08105); with an
    outer learning rate of 1 and no outer momentum, local SGD (Stich 2018, arXiv:1805.09767)."""

    replicas: int = Field(2, ge=1, description="replicas, each with the ranks of `parallel`; they split the batch")
    inner_steps: int = Field(50, ge=1, description="steps that a replica makes alone before all meet (H)")
    outer_lr: float = Field(0.7, gt=0, description="learning rate of the outer SGD (the paper's 0.7)")
    outer_momentum: float = Field(0.9, ge=0, lt=1, description="its Nesterov momentum (the paper's 0.9)")


class AsyncConfig(Config):
    """Workers that hand their gradients to a parameter server (Downpour SGD, Dean et al. 2012), none of them further
    ahead of the slowest than a bound (stale synchronous parallel, Ho et al. 2013)."""

    workers: int = Field(2, ge=1, description="ranks that compute gradients; the server is one more")
    staleness: int | None = Field(4, ge=0, description="batches a worker may be ahead of the slowest; null: no bound")
    damp: bool = Field(
        False, description="divide the learning rate by the gradient's staleness (Zhang et al. 2015, arXiv:1511.05950)"
    )
    arrivals: Literal["real", "seeded"] = Field(
        "real", description="seeded: gradients are taken in an order drawn from `seed`, so that a run can be repeated"
    )
    seed: int = Field(0, ge=0, description="of the order of arrival")

    @property
    def ranks(self) -> int:
        """Processes needed: the workers and the server, which is rank 0."""
        return self.workers + 1
