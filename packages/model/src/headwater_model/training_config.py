"""How a model is trained: layout, optimiser, schedule; contradictions end here, before anything runs."""

from __future__ import annotations

import math
from typing import Any, Literal

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
        if self.context > 1 and model.kind != "decoder":
            raise ValueError(f"kind {model.kind} needs parallel.context 1: its positions look ahead")
        if model.kind in ("encoder_decoder", "encoder") and (self.pipeline > 1 or self.sequence):
            raise ValueError(f"kind {model.kind} needs parallel.pipeline 1 and parallel.sequence false")
        if model.kind == "encoder_decoder" and self.recompute != "none":
            # every layer adds the one relative bias, whose graph attention computed again would go through twice
            raise ValueError("kind encoder_decoder needs parallel.recompute none")
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


class WidthTransferConfig(Config):
    """A learning rate found on a narrow model, used on a wide one (muP, Yang et al., arXiv:2203.03466)."""

    base: int = Field(ge=8, description="hidden width of the model for which `optimizer.lr` is right")
    output: float = Field(
        1.0,
        gt=0,
        description="what the base's output matrix (with tied embeddings: last gain) is multiplied with as drawn",
    )


OPTIMIZERS: dict[str, dict[str, float | bool]] = {
    "adamw": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8},
    "adafactor": {"decay_power": 0.8},
    "lion": {"beta1": 0.9, "beta2": 0.99},
    "muon": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "momentum": 0.95, "nesterov": True},
    "sgd": {"momentum": 0.9, "nesterov": False},
}
"""What can be set of each kind, and to what it is if null."""


class OptimizerConfig(Config):
    """How gradients become updates. A field that the kind does not use must be null."""

    kind: Literal["adamw", "adafactor", "lion", "muon", "sgd"] = Field(
        "adamw", description="muon: for hidden matrices, AdamW for the rest"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    beta1: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="adamw, muon: decay of the mean of the gradient; lion: its share of the update; 0.9",
    )
    beta2: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="adamw, muon: decay of the mean of its square, 0.95; lion: of the mean of the gradient, 0.99",
    )
    eps: float | None = Field(None, gt=0, description="adamw, muon: added to the root of the second moment; 1e-8")
    momentum: float | None = Field(None, ge=0, lt=1, description="muon, sgd: decay of the momentum; 0.95 and 0.9")
    nesterov: bool | None = Field(None, description="muon, sgd: look ahead along the momentum; true and false")
    decay_power: float | None = Field(
        None, gt=0, le=1, description="adafactor: the second moment's decay is 1 - step^-decay_power; 0.8"
    )
    weight_decay: float = Field(
        0.1, ge=0, description="decay of matrices, times the learning rate; norms and biases are left alone"
    )
    decay_embeddings: bool = Field(True, description="whether input tables decay as matrices do")
    clip: float = Field(1.0, ge=0, description="largest global gradient norm; 0 switches clipping off")
    width_transfer: WidthTransferConfig | None = Field(
        None, description="scale the learning rate by role and width; null: one for all"
    )

    @model_validator(mode="after")
    def _used(self) -> OptimizerConfig:
        special = {name for fields in OPTIMIZERS.values() for name in fields}
        for name in sorted(special - set(OPTIMIZERS[self.kind])):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} means nothing to {self.kind}: leave it out or set it null")
        if self.nesterov and not self.settings["momentum"]:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @property
    def settings(self) -> dict[str, float | bool]:
        """The kind's own settings, defaults filled in."""
        given = {name: getattr(self, name) for name in OPTIMIZERS[self.kind]}
        return {name: OPTIMIZERS[self.kind][name] if value is None else value for name, value in given.items()}


class ScheduleConfig(Config):
    """The learning rate over a run: linear warm-up, then the decay named, to `floor` of the peak."""

    kind: Literal["constant", "linear", "cosine", "step", "exponential", "inverse_sqrt", "wsd"] = Field(
        "cosine", description="shape after the warm-up; wsd: constant, then a final decay"
    )
    unit: Literal["steps", "tokens"] = Field(
        "steps", description="what warmup, steps, decay and milestones count; they differ where the batch grows"
    )
    warmup: int = Field(0, ge=0, description="units from 0 to the peak")
    steps: int = Field(1000, ge=1, description="units in all; constant, step and inverse_sqrt have no end")
    floor: float = Field(
        0.0, ge=0, le=1, description="lowest learning rate after the warm-up, as a fraction of the peak"
    )
    decay: int = Field(0, ge=0, description="wsd: units of the final decay")
    decay_shape: Literal["sqrt", "linear"] = Field("sqrt", description="wsd: 1 - sqrt(share of the decay), or linear")
    milestones: list[int] = Field(default_factory=list, description="step: units after which the rate drops")
    factor: float = Field(0.1, gt=0, lt=1, description="step: what a drop multiplies the rate with")

    @model_validator(mode="after")
    def _fits(self) -> ScheduleConfig:
        ends = self.kind in ("linear", "cosine", "exponential", "wsd")
        if ends and self.warmup >= self.steps:
            raise ValueError(f"warmup {self.warmup} leaves nothing of {self.steps} {self.unit}")
        if self.kind == "wsd" and not 0 < self.decay <= self.steps - self.warmup:
            raise ValueError(f"wsd needs 1 to {self.steps - self.warmup} {self.unit} of decay, not {self.decay}")
        if self.kind == "exponential" and self.floor == 0:
            raise ValueError("exponential never reaches 0: set floor, such as 0.1")
        if self.kind == "inverse_sqrt" and self.warmup == 0:
            raise ValueError("inverse_sqrt falls from the end of its warm-up on: set warmup above 0")
        if self.kind == "step" and not self.milestones:
            raise ValueError("step needs milestones")
        if self.milestones != sorted(set(self.milestones)) or min(self.milestones, default=1) < 1:
            raise ValueError(f"milestones must rise from 1 on, not {self.milestones}")
        if self.kind == "step" and self.milestones[0] < self.warmup:
            raise ValueError(f"the first milestone {self.milestones[0]} lies within the warmup of {self.warmup}")
        return self


class RunScheduleConfig(Config):
    """The learning rate over a run, in shares of it; `over` makes a `ScheduleConfig` of a run of known length."""

    kind: Literal["constant", "linear", "cosine", "step", "exponential", "inverse_sqrt", "wsd"] = Field(
        "cosine", description="shape after the warm-up; wsd: constant, then a final decay"
    )
    unit: Literal["steps", "tokens"] = Field("steps", description="what is counted; they differ where the batch grows")
    warmup: float = Field(0.02, ge=0, lt=1, description="share of the run with rising learning rate")
    floor: float = Field(0.0, ge=0, le=1, description="lowest learning rate after it, as a fraction of the peak")
    decay: float = Field(0.3, gt=0, le=1, description="wsd: share of the run with falling learning rate")
    decay_shape: Literal["sqrt", "linear"] = Field("sqrt", description="wsd: 1 - sqrt(share of the decay), or linear")
    milestones: list[float] = Field([0.5, 0.75], description="step: shares of the run after which the rate drops")
    factor: float = Field(0.1, gt=0, lt=1, description="step: what a drop multiplies the rate with")

    def over(self, steps: int, tokens: int) -> ScheduleConfig:
        """The schedule of a run of so many steps and tokens."""
        units = steps if self.unit == "steps" else tokens
        warmup = min(round(self.warmup * units), units - 1)
        if self.kind == "inverse_sqrt":
            warmup = max(1, warmup)
        return ScheduleConfig(
            kind=self.kind,
            unit=self.unit,
            warmup=warmup,
            steps=units,
            floor=self.floor,
            decay=max(1, min(round(self.decay * units), units - warmup)) if self.kind == "wsd" else 0,
            decay_shape=self.decay_shape,
            milestones=[max(1, round(share * units)) for share in self.milestones] if self.kind == "step" else [],
            factor=self.factor,
        )


class ChangeConfig(Config):
    """A change of course that is known beforehand."""

    step: int = Field(ge=0, description="steps done when it is made")
    set: dict[str, Any] = Field(min_length=1, description="settings to change, as {optimizer.lr: 0.001}")
    why: str = Field("", description="for the flight log")


class LaunchConfig(Config):
    """How the ranks of a run are started."""

    kind: Literal["here", "srun", "wait"] = Field(
        "here", description="on this machine; by srun in this allocation; or by others (torchrun), who are told how"
    )
    per_node: int | None = Field(None, ge=1, description="srun: ranks a node; Slurm's choice if null")
    options: list[str] = Field(default_factory=list, description="srun: further options, as --cpu-bind=cores")


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


class ObjectiveConfig(Config):
    """What is taken out of a window of text, for the kinds of model that restore it (see `objectives`)."""

    rate: float = Field(0.15, gt=0, lt=1, description="share of the tokens that are masked or taken out")
    mean_span: float = Field(3.0, ge=1, description="encoder_decoder: tokens of a span that is taken out, on average")


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
