"""Every parameter of plan, pretrain and export, with its unit; contradictions end here, before anything runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from . import presets
from ._contracts.config import Config
from ._contracts.errors import UserError
from .model_config import ModelConfig
from .planning import costs, hardware
from .training_config import (
    AsyncConfig,
    BatchRampConfig,
    ChangeConfig,
    CheckpointConfig,
    DataConfig,
    LaunchConfig,
    LocalSGDConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ParallelConfig,
    RestartConfig,
    RunScheduleConfig,
    ScheduleConfig,
    SpikeConfig,
    TrackingConfig,
)

__all__ = [
    "AsyncConfig",
    "BatchRampConfig",
    "BudgetConfig",
    "ChangeConfig",
    "CheckpointConfig",
    "DataConfig",
    "DeviceConfig",
    "ExportConfig",
    "HardwareConfig",
    "LaunchConfig",
    "LocalSGDConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "PlanConfig",
    "PretrainConfig",
    "RestartConfig",
    "RunConfig",
    "RunScheduleConfig",
    "ScheduleConfig",
    "SpikeConfig",
    "TrackingConfig",
]


class DeviceConfig(Config):
    """An accelerator of `planning/hardware.yaml`; its figures are filled in, and so part of the fingerprint."""

    device: str | None = Field(None, description="name in planning/hardware.yaml, as h100-sxm")
    figures: dict[str, float] = Field(
        default_factory=dict, description="figures of the device to replace, as tflops or usd_per_hour"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        name = values.get("device") if isinstance(values, dict) else None
        replaced = values.get("figures") or {} if name else {}
        if not isinstance(name, str) or not isinstance(replaced, dict):
            return values
        try:
            hardware.load(name, replaced)
        except UserError as e:
            raise ValueError(str(e)) from None
        return {**values, "figures": {**hardware.figures(name), **replaced}}

    @property
    def loaded(self) -> hardware.Device:
        """The device in SI units."""
        return hardware.load(self.device or "", self.figures)


class BudgetConfig(DeviceConfig):
    """What a run may cost: FLOPs, days on devices, money, tokens or a size; if none, minutes at a known speed."""

    flops: float | None = Field(None, gt=0, description="training FLOPs; overrides minutes x flops_per_second")
    minutes: float = Field(9.0, gt=0, description="minutes of training")
    flops_per_second: float = Field(
        1.5e11, gt=0, description="model FLOPs a second that training reaches on the device"
    )
    days: float | None = Field(None, gt=0, description="days on `devices` devices at `utilisation`")
    usd: float | None = Field(None, gt=0, description="US dollars for rented devices at `utilisation`")
    tokens: float | None = Field(None, gt=0, description="tokens to train on; the size follows")
    parameters: float | None = Field(None, gt=0, description="matrix parameters; the tokens follow")
    devices: int = Field(1, ge=1, description="devices, for days")
    utilisation: float = Field(0.4, gt=0, le=1, description="of the device's peak, by the model's FLOPs")

    @model_validator(mode="after")
    def _one(self) -> BudgetConfig:
        given = [name for name in ("flops", "days", "usd", "tokens", "parameters") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}: each says alone what the run may cost")
        if (self.days or self.usd) and self.device is None:
            raise ValueError(f"{given[0]} needs device, a name in planning/hardware.yaml, as h100-sxm")
        return self

    def total(self, tokens_per_parameter: float) -> float:
        """Training FLOPs."""
        if self.tokens:
            return 6 * self.tokens * self.tokens / tokens_per_parameter
        if self.parameters:
            return 6 * self.parameters * self.parameters * tokens_per_parameter
        if self.days:
            return costs.flops_of_days(self.days, self.devices, self.loaded, self.utilisation)
        if self.usd:
            return costs.flops_of_usd(self.usd, self.loaded, self.utilisation)
        return self.flops or self.minutes * 60 * self.flops_per_second


class HardwareConfig(DeviceConfig):
    """The devices for which the plan stage predicts memory, time and price, and which layouts it tries."""

    device: str = Field(description="name in planning/hardware.yaml, as h100-sxm")
    devices: int = Field(8, ge=1, description="devices")
    zero: list[Literal[0, 1, 2, 3]] = Field([1], min_length=1, description="ZeRO stages to try")
    recompute: list[Literal["none", "selective", "full"]] = Field(
        ["none", "full"], min_length=1, description="recomputation of activations to try"
    )
    micro_batches: list[int] = Field([1, 2, 4, 8, 16, 32], min_length=1, description="sequences a forward pass to try")
    interleaves: list[int] = Field([1, 2, 4], min_length=1, description="model chunks a pipeline rank to try")
    max_tensor: int = Field(8, ge=1, description="tensor-parallel ranks at most; never beyond a node")
    max_pipeline: int = Field(64, ge=1, description="pipeline ranks at most")
    max_context: int = Field(1, ge=1, description="context-parallel ranks at most")
    precision: Literal["bfloat16", "float32"] = Field("bfloat16", description="of parameters and activations")
    attention: Literal["flash", "unfused"] = Field("flash", description="unfused: scores pass through memory")
    top: int = Field(5, ge=1, description="layouts in plan.json, fastest first")


class PlanConfig(Config):
    """How the plan stage turns a budget and tokens at hand into a shape and a number of steps."""

    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="compute")
    tokens_per_parameter: float = Field(20.0, gt=0, description="tokens a matrix parameter (Chinchilla: about 20)")
    max_epochs: float = Field(4.0, gt=0, description="how often the tokens at hand may be repeated")
    context: int = Field(512, ge=16, description="sequence length in tokens")
    head_width: int = Field(64, ge=8, description="channels an attention head")
    aspect: float = Field(64.0, gt=0, description="hidden width a layer, where the shape is not pinned")
    preset: str | None = Field(None, description="published model whose fields are pinned, see headwater-model presets")
    model: dict[str, bool | int | float | str | None] = Field(
        default_factory=dict,
        description="fields of the model to pin, such as layers, hidden, heads, position; they override the preset's",
    )
    batch: int | None = Field(None, ge=1, description="sequences a step; from the tokens if null")
    lr: float | None = Field(None, gt=0, description="peak learning rate; from the width if null")
    vocab_multiple: int = Field(64, ge=1, description="the vocabulary is padded to a multiple of this")
    hardware: HardwareConfig | None = Field(None, description="devices to predict memory, time and price for")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        """The preset's fields become the plan's own, and so part of the fingerprint."""
        name = values.get("preset") if isinstance(values, dict) else None
        given = values.get("model") or {} if name else {}
        if not isinstance(name, str) or not isinstance(given, dict):
            return values
        try:
            return {**values, "model": {**presets.fields(name), **given}}
        except UserError as e:
            raise ValueError(str(e)) from None

    @model_validator(mode="after")
    def _known(self) -> PlanConfig:
        known = set(ModelConfig.model_fields) - {"vocab", "context"}
        if unknown := sorted(set(self.model) - known):
            raise ValueError(f"model: {unknown[0]} is none of {', '.join(sorted(known))}")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} must be even for rotary positions")
        return self


class RunConfig(Config):
    """What every run of the loop takes, whatever it learns."""

    seed: int = Field(1234, ge=0, description="of weights and data order")
    precision: Literal["bfloat16", "float32"] = Field("bfloat16", description="of parameters; masters are float32")
    micro_batch: int = Field(8, ge=1, description="sequences a forward pass")
    validate_every: int = Field(500, ge=1, description="steps between held-out losses")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    log_every: int = Field(10, ge=1, description="steps averaged in one row of the loss curve")
    threads: int | None = Field(None, ge=1, description="threads a rank; cores / ranks if null")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="layout; of each replica, if local")
    spikes: SpikeConfig | None = Field(
        default_factory=SpikeConfig, description="what to do about loss spikes; null: end at a loss that is no number"
    )
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig, description="how written, which stay")
    # What watches, starts and restarts a run decides nothing about it: no part of its identity.
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, exclude=True, description="where it is watched")
    restarts: RestartConfig = Field(
        default_factory=RestartConfig, exclude=True, description="when a rank dies or hangs"
    )
    launch: LaunchConfig = Field(default_factory=LaunchConfig, exclude=True, description="how ranks are started")

    @property
    def worlds(self) -> int:
        """Replicas or workers, each of the ranks of `parallel`, that compute gradients; 1 in synchronous training."""
        return 1

    @property
    def ranks(self) -> int:
        """Processes of the run."""
        return self.worlds * self.parallel.ranks

    @property
    def fixed(self) -> tuple[str, ...]:
        """Keys of `steering.Settings` that can't change under way: a tuning run's batches are made up before its first
        step, and its export has the activation of the model that it started from."""
        return ("batch", "activation")

    @property
    def steerable(self) -> bool:
        """Whether orders reach every rank at the same step."""
        return True


class PretrainConfig(RunConfig):
    """How the pretrain stage runs the plan."""

    data: DataConfig = Field(default_factory=DataConfig, description="what is read, in which shares")
    objective: ObjectiveConfig = Field(
        default_factory=ObjectiveConfig, description="what a model of kind encoder or encoder_decoder restores"
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="the plan gives its lr")
    schedule: RunScheduleConfig = Field(default_factory=RunScheduleConfig, description="learning rate over the run")
    ramp: BatchRampConfig | None = Field(None, description="a batch that grows to the plan's; null: it is that at once")
    steps: int | None = Field(None, ge=1, description="steps, in place of the plan's: fewer for a trial, or more")
    heldout_tokens: int | None = Field(200_000, ge=1, description="held-out tokens at each of them; null: all")
    local: LocalSGDConfig | None = Field(None, description="replicas that train alone and meet; null: synchronous")
    asynchronous: AsyncConfig | None = Field(None, description="a server and its workers; null: synchronous")
    changes: list[ChangeConfig] = Field(default_factory=list, description="of settings during the run")

    @model_validator(mode="after")
    def _one_mode(self) -> PretrainConfig:
        if self.local and self.asynchronous:
            raise ValueError("local and asynchronous are two modes; set one of them")
        if self.local:
            if self.parallel.zero or self.parallel.chunks > 1:
                raise ValueError("local needs whole weights on a rank: set parallel.zero 0 and parallel.chunks 1")
            if self.checkpoints.last < 2:
                raise ValueError("local needs checkpoints.last 2 or more: a replica may be one checkpoint ahead")
        if self.asynchronous:
            if self.parallel.ranks > 1:
                raise ValueError("asynchronous needs one rank in parallel: a worker is one rank")
            if self.ramp or self.schedule.unit == "tokens":
                raise ValueError("asynchronous hands out batches of one size: set ramp null and schedule.unit steps")
            if self.launch.kind != "here":
                raise ValueError("asynchronous runs on one machine: set launch.kind here")
        return self

    @property
    def worlds(self) -> int:
        """Replicas or workers, each of the ranks of `parallel`, that compute gradients; 1 in synchronous training."""
        return self.local.replicas if self.local else self.asynchronous.workers if self.asynchronous else 1

    @property
    def ranks(self) -> int:
        """Processes of the run."""
        return self.asynchronous.ranks if self.asynchronous else super().ranks

    @property
    def fixed(self) -> tuple[str, ...]:
        """Keys of `steering.Settings` that can't change under way: others than the server would have to know."""
        return ("batch", "activation") if self.asynchronous else ("batch",) if self.local else ()

    @property
    def steerable(self) -> bool:
        """Not replicas that meet seldom: they can't take an order at the same step."""
        return not self.local


class ExportConfig(Config):
    """How the export stage writes the model."""

    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the exported weights")
