"""The shape of a model: every option of its architecture, what it counts in parameters and FLOPs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from . import encoder_counts
from ._contracts.config import Config

Kind = Literal["decoder", "prefix", "encoder_decoder", "encoder"]
Position = Literal["rotary", "learned", "sinusoidal", "alibi", "none", "relative"]
Activation = Literal["swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "relu", "squared_relu"]
Init = Literal["fan_in", "normal", "scaled", "small", "t_fixup"]
GATED = ("swiglu", "geglu", "geglu_tanh")
# What a kind is made of where nothing else is said: T5 version 1.1, BERT.
KIND_DEFAULTS: dict[str, dict[str, Any]] = {
    "encoder_decoder": {"position": "relative", "activation": "geglu_tanh", "norm_eps": 1e-6},
    "encoder": {
        "position": "learned",
        "norm": "layernorm",
        "norm_eps": 1e-12,
        "activation": "gelu",
        "biases": True,
        "tie_embeddings": True,
        "init": "normal",
    },
}


class ModelConfig(Config):
    """Shape of a transformer; the defaults are Llama's: RMSNorm, SwiGLU, rotary positions, no biases."""

    kind: Kind = Field(
        "decoder",
        description="decoder: causal; prefix: one that reads a prefix in both directions; encoder_decoder: T5, and "
        "encoder: BERT, with defaults of their own",
    )
    layers: int = Field(6, ge=1, description="transformer layers")
    hidden: int = Field(256, ge=8, description="width of the residual stream")
    heads: int = Field(4, ge=1, description="query heads")
    kv_heads: int | None = Field(None, ge=1, description="key and value heads; as many as query heads if null")
    head_width: int = Field(0, ge=0, description="channels of one head; hidden / heads if 0, and filled in")
    ffn: int | None = Field(
        None, ge=8, description="width of the MLP; if null 4 x hidden, gated 8/3 of hidden rounded up to 64"
    )
    vocab: int = Field(8192, ge=2, description="token ids, padding ids included")
    context: int = Field(512, ge=2, description="longest sequence in tokens")
    position: Position = Field("rotary", description="how a token knows its place")
    rope_base: float = Field(10_000.0, gt=0, description="base of the rotary frequencies")
    rope_share: float = Field(1.0, gt=0, le=1, description="share of a head's channels that are rotated")
    rope_scaling: float | None = Field(
        None, ge=1, description="Llama 3.1's factor on long wavelengths (from a context of 8,192); none if null"
    )
    norm: Literal["rmsnorm", "layernorm"] = Field("rmsnorm", description="norm before each block, and the last one")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of the norm")
    activation: Activation = Field("swiglu", description="of the MLP; gelu: exact; *glu*: gated")
    biases: bool = Field(False, description="in every linear layer but the output embedding")
    qkv_bias: bool = Field(False, description="in the query, key and value projections even without biases")
    parallel_residual: bool = Field(False, description="attention and MLP both read the layer's input (GPT-NeoX)")
    tie_embeddings: bool = Field(False, description="one matrix for input and output embeddings")
    dropout: float = Field(0.0, ge=0, lt=1, description="of embeddings and of what blocks add to the residual stream")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="of attention probabilities")
    experts: int | None = Field(None, ge=2, description="MLPs a layer among which each token chooses; one if null")
    experts_per_token: int = Field(2, ge=1, description="experts that each token is sent to")
    balance_loss: float = Field(
        0.01, ge=0, description="weight of the loss that balances the experts (arXiv:2101.03961, equation 4)"
    )
    init: Init = Field("fan_in", description="how weights are drawn, see initialise.py")
    init_std: float | None = Field(None, gt=0, description="std of init normal and scaled; 0.02 if null")

    # Kinds encoder_decoder and encoder alone
    encoder_layers: int | None = Field(None, ge=1, description="encoder_decoder: as many as `layers` if null")
    relative_buckets: int = Field(32, ge=4, description="encoder_decoder: distances that are told apart (even number)")
    relative_distance: int = Field(128, ge=8, description="encoder_decoder: tokens beyond which all is equally far")
    token_types: int = Field(2, ge=1, description="encoder: kinds of segment that a token may be of")

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_of_its_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**KIND_DEFAULTS.get(str(values.get("kind")), {}), **values}

    @model_validator(mode="before")
    @classmethod
    def _with_head_width(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("head_width"):
            return values
        try:
            hidden, heads = (int(values.get(n, cls.model_fields[n].default)) for n in ("hidden", "heads"))
        except (TypeError, ValueError):
            return values  # the field's own check says what is wrong with it
        if heads > 0 and hidden % heads:
            raise ValueError(f"hidden {hidden} is no multiple of heads {heads}; give head_width if that is meant")
        return {**values, "head_width": hidden // max(heads, 1)}

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads {self.heads} is no multiple of kv_heads {self.key_value_heads}")
        if self.position == "rotary":
            if (rotated := int(self.head_width * self.rope_share)) % 2 or not rotated:
                raise ValueError(f"rotary positions need an even number of channels a head, not {rotated}")
        elif self.rope_share != 1 or self.rope_scaling is not None:
            raise ValueError(f"rope_share and rope_scaling go with position rotary, not {self.position}")
        if self.position == "sinusoidal" and self.hidden % 2:
            raise ValueError(f"sinusoidal positions need an even hidden, not {self.hidden}")
        if self.experts and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is more than experts {self.experts}")
        if self.experts and self.biases:
            raise ValueError("Megatron's experts take no biases; set biases false (qkv_bias is possible)")
        if self.init_std is not None and self.init not in ("normal", "scaled"):
            raise ValueError(f"init_std goes with init normal or scaled; {self.init} has a scale of its own")
        encoder_counts.check(self)
        return self

    @property
    def encoder_depth(self) -> int:
        """Layers of an encoder-decoder's encoder with the default filled in."""
        return self.encoder_layers or self.layers

    @property
    def key_value_heads(self) -> int:
        """Key and value heads with the default filled in."""
        return self.kv_heads or self.heads

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate, and so a third matrix (Shazeer, arXiv:2002.05202)."""
        return self.activation in GATED

    @property
    def ffn_width(self) -> int:
        """Width of the MLP with the default filled in (8/3: as many weights as a plain MLP of 4 x hidden)."""
        if self.ffn:
            return self.ffn
        return -(-self.hidden * 8 // 3 // 64) * 64 if self.gated else 4 * self.hidden

    @property
    def matrix_parameters(self) -> int:
        """Weights that multiply each token: layers and output embedding, not the input table; of the experts those
        of `experts_per_token` and the router."""
        if self.kind in KIND_DEFAULTS:
            return encoder_counts.matrix_parameters(self)
        return self.layers * self._layer_matrices(self.experts_per_token) + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights: matrices, biases, norms, and the tables of tokens (one or two) and of positions."""
        if self.kind in KIND_DEFAULTS:
            return encoder_counts.parameters(self)
        tables = self.vocab * (1 if self.tie_embeddings else 2) + (self.context if self.position == "learned" else 0)
        layer = self._layer_matrices(self.experts or 1) + self._layer_biases + 2 * self._norm
        return self.layers * layer + tables * self.hidden + self._norm

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs a token at full context: 6 a matrix weight, plus attention where the mask leaves it.

        Attention: two products of 2 x context x heads x width forward, twice again backward: 12 x layers x context x
        heads x width (PaLM, arXiv:2204.02311, appendix B), of which a causal mask leaves a half, and a prefix whose
        length is uniform over the context two thirds.
        """
        if self.kind in KIND_DEFAULTS:
            return encoder_counts.flops_per_token(self)
        whole = 12 * self.layers * self.context * self.heads * self.head_width
        return 6 * self.matrix_parameters + (whole * 2 // 3 if self.kind == "prefix" else whole // 2)

    def _layer_matrices(self, experts: int) -> int:
        """Matrix weights of one layer, counting `experts` of the MLPs where there are several."""
        attention = self.hidden * self.head_width * (2 * self.heads + 2 * self.key_value_heads)
        mlp = (3 if self.gated else 2) * self.hidden * self.ffn_width
        return attention + (experts * mlp + self.experts * self.hidden if self.experts else mlp)

    @property
    def _layer_biases(self) -> int:
        """Biases of the linear maps of one layer."""
        qkv = self.head_width * (self.heads + 2 * self.key_value_heads) if self.biases or self.qkv_bias else 0
        rest = 2 * self.hidden + (2 if self.gated else 1) * self.ffn_width
        return qkv + (rest if self.biases else 0)

    @property
    def _norm(self) -> int:
        """Weights of one norm."""
        return self.hidden * (2 if self.norm == "layernorm" else 1)
