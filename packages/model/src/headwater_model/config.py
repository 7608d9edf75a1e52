"""Every parameter of plan, pretrain and export, with its unit; contradictions end here, before anything runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ._contracts.config import Config
from ._contracts.errors import UserError
from .planning import costs, hardware


class ModelConfig(Config):
    """Shape of a Llama-like causal decoder: RMSNorm, SwiGLU, rotary positions, no biases."""

    layers: int = Field(6, ge=1, description="transformer layers")
    hidden: int = Field(256, ge=8, description="width of the residual stream")
    heads: int = Field(4, ge=1, description="query heads")
    kv_heads: int | None = Field(None, ge=1, description="key and value heads; as many as query heads if null")
    ffn: int | None = Field(None, ge=8, description="width of the gated MLP; 8/3 of hidden, rounded up to 64, if null")
    vocab: int = Field(8192, ge=2, description="token ids, padding ids included")
    context: int = Field(512, ge=2, description="longest sequence in tokens")
    rope_base: float = Field(10_000.0, gt=0, description="base of the rotary frequencies")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of RMSNorm")
    tie_embeddings: bool = Field(False, description="one matrix for input and output embeddings")
    init_std: float | None = Field(None, gt=0, description="std of the hidden matrices; 1/sqrt(fan in) if null")

    @model_validator(mode="after")
    def _divides(self) -> ModelConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        if self.hidden // self.heads % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.hidden // self.heads}")
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} is no multiple of kv_heads {self.key_value_heads}")
        return self

    @property
    def key_value_heads(self) -> int:
        """Key and value heads with the default filled in."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.hidden // self.heads

    @property
    def ffn_width(self) -> int:
        """Width of the gated MLP with the default filled in (8/3: as many weights as a plain MLP of 4 x hidden)."""
        return self.ffn or -(-self.hidden * 8 // 3 // 64) * 64

    @property
    def matrix_parameters(self) -> int:
        """Weights that multiply each token: layers and output embedding, not the input table."""
        attention = self.hidden * self.head_width * (2 * self.heads + 2 * self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn_width) + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights: matrices, norms, and the input table where it is its own."""
        table = 0 if self.tie_embeddings else self.vocab * self.hidden
        return self.matrix_parameters + table + self.hidden * (2 * self.layers + 1)

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs a token at full context: 6 a matrix weight, plus attention counted causally.

        Attention: two products of 2 x context x heads x width forward, half of them masked, twice again
        backward: 6 x layers x context x heads x width (PaLM, arXiv:2204.02311, appendix B, halved).
        """
        return 6 * self.matrix_parameters + 6 * self.layers * self.context * self.heads * self.head_width


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
    model: dict[str, int | float | bool | None] = Field(
        default_factory=dict, description="fields of the model's shape to pin, such as layers, hidden, heads"
    )
    batch: int | None = Field(None, ge=1, description="sequences a step; from the tokens if null")
    lr: float | None = Field(None, gt=0, description="peak learning rate; from the width if null")
    vocab_multiple: int = Field(64, ge=1, description="the vocabulary is padded to a multiple of this")
    hardware: HardwareConfig | None = Field(None, description="devices to predict memory, time and price for")

    @model_validator(mode="after")
    def _known(self) -> PlanConfig:
        known = set(ModelConfig.model_fields) - {"vocab", "context"}
        if unknown := sorted(set(self.model) - known):
            raise ValueError(f"model: {unknown[0]} is none of {', '.join(sorted(known))}")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} must be even for rotary positions")
        return self


class PretrainConfig(Config):
    """How the pretrain stage runs the plan."""

    seed: int = Field(1234, ge=0, description="of weights and data order")
    precision: Literal["bfloat16", "float32"] = Field("bfloat16", description="of parameters; masters are float32")
    micro_batch: int = Field(8, ge=1, description="sequences a forward pass")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="the plan gives its lr")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field("cosine", description="learning rate over steps")
    warmup: float = Field(0.02, ge=0, lt=1, description="share of the steps with rising learning rate")
    decay: float = Field(0.3, gt=0, le=1, description="wsd: share of the steps with falling learning rate")
    floor: float = Field(0.0, ge=0, le=1, description="last learning rate as a fraction of the peak")
    steps: int | None = Field(None, ge=1, description="stop the plan short, for a trial")
    validate_every: int = Field(500, ge=1, description="steps between held-out losses")
    heldout_tokens: int | None = Field(200_000, ge=1, description="held-out tokens at each of them; null: all")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    log_every: int = Field(10, ge=1, description="steps averaged in one row of the loss curve")
    threads: int | None = Field(None, ge=1, description="threads a rank; cores / ranks if null")
    parallel: ParallelConfig = Field(default_factory=ParallelConfig, description="layout")


class ExportConfig(Config):
    """How the export stage writes the model."""

    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the exported weights")
