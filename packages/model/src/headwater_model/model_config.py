"""The shape of a model: every option of its architecture, what it counts in parameters and FLOPs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ._contracts.config import Config


class ModelConfig(Config):
    """Shape of a Llama-like causal decoder: RMSNorm, SwiGLU, rotary positions, no biases."""

    kind: Literal["decoder", "prefix", "encoder_decoder", "encoder"] = Field(
        "decoder", description="causal decoder, decoder with a visible prefix, T5, or BERT"
    )
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
