"""What a transformer is, as far as memory and time depend on it: widths, counts, parameters, FLOPs.

Wider than `headwater_model.config.ModelConfig`, so that published models can be checked too: plain or gated MLP,
biases, learned positions, dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._contracts.errors import UserError
from ..config import ModelConfig


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer; every width in elements."""

    layers: int
    hidden: int
    heads: int
    vocab: int
    context: int
    kv_heads: int = 0
    """Key and value heads; 0: as many as query heads."""
    ffn: int = 0
    """Width of the MLP; 0: 4 x hidden."""
    gated: bool = False
    """Three MLP matrices (SwiGLU) instead of two."""
    biases: bool = True
    """Biases in every linear layer, and LayerNorm (weight and bias) instead of RMSNorm, see `layernorm`."""
    learned_positions: bool = True
    """A table of `context` positions."""
    tied: bool = True
    """One matrix for input and output embeddings."""
    dropout: bool = True
    """Masks and outputs of dropout are kept for the backward pass."""
    head_width: int = 0
    """Channels of one head; 0: hidden / heads."""
    qkv_bias: bool = False
    """Biases of the query, key and value projections where there are no others."""
    layernorm: bool | None = None
    """Norms have a bias beside their weight; None: where linear layers have biases."""

    @property
    def query_width(self) -> int:
        """Width of the queries, and of what attention hands to its output projection."""
        return self.heads * (self.head_width or self.hidden // self.heads)

    @property
    def kv_width(self) -> int:
        """Width of the keys (and of the values)."""
        return self.query_width // self.heads * (self.kv_heads or self.heads)

    @property
    def ffn_width(self) -> int:
        """Width of the MLP with the default filled in."""
        return self.ffn or 4 * self.hidden

    @property
    def mlp_matrices(self) -> int:
        """Matrices of one MLP."""
        return 3 if self.gated else 2

    @property
    def attention_parameters(self) -> int:
        """Matrix weights of one attention layer: query, key, value and output projections."""
        return self.hidden * (2 * self.query_width + 2 * self.kv_width)

    @property
    def mlp_parameters(self) -> int:
        """Matrix weights of one MLP."""
        return self.mlp_matrices * self.hidden * self.ffn_width

    @property
    def layer_matrices(self) -> int:
        """Matrix weights of one layer, the part that tensor parallelism splits."""
        return self.attention_parameters + self.mlp_parameters

    @property
    def layer_vectors(self) -> int:
        """Norm weights and biases of one layer."""
        qkv = self.query_width + 2 * self.kv_width if self.biases or self.qkv_bias else 0
        rest = (self.mlp_matrices - 1) * self.ffn_width + 2 * self.hidden if self.biases else 0
        return 2 * self.final_norm + qkv + rest

    @property
    def embedding(self) -> int:
        """Weights of one embedding table."""
        return self.vocab * self.hidden

    @property
    def positions(self) -> int:
        """Weights of the table of positions."""
        return self.context * self.hidden if self.learned_positions else 0

    @property
    def final_norm(self) -> int:
        """Weights of the last norm."""
        return self.hidden * (2 if (self.biases if self.layernorm is None else self.layernorm) else 1)

    @property
    def parameters(self) -> int:
        """All weights. For GPT-2's recipe this is equation 2 of arXiv:2104.04473, its rounding apart."""
        tables = self.embedding * (1 if self.tied else 2) + self.positions
        return self.layers * (self.layer_matrices + self.layer_vectors) + tables + self.final_norm

    @property
    def matrix_parameters(self) -> int:
        """Weights that multiply each token: layers and output embedding."""
        return self.layers * self.layer_matrices + self.embedding

    def flops_per_token(self, causal: bool = True) -> float:
        """Training FLOPs a token, without recomputation: 6 a matrix weight, and attention.

        Args:
            causal: count only the half of the scores that the mask leaves, as `ModelConfig.flops_per_token` does;
                False counts all, as the papers do whose utilisation is quoted (PaLM, Megatron-LM).
        """
        attention = 12 * self.layers * self.context * self.query_width
        return 6 * self.matrix_parameters + attention / (2 if causal else 1)

    @classmethod
    def of(cls, model: ModelConfig) -> Shape:
        """The shape of a model that this package trains.

        Raises:
            UserError: a mixture of experts, whose memory and time are not predicted.
        """
        if model.experts:
            raise UserError("plan.hardware predicts nothing for models with experts; leave it out")
        return cls(
            layers=model.layers,
            hidden=model.hidden,
            heads=model.heads,
            vocab=model.vocab,
            context=model.context,
            kv_heads=model.key_value_heads,
            ffn=model.ffn_width,
            gated=model.gated,
            biases=model.biases,
            learned_positions=model.position == "learned",
            tied=model.tie_embeddings,
            dropout=max(model.dropout, model.attention_dropout) > 0,
            head_width=model.head_width,
            qkv_bias=model.qkv_bias,
            layernorm=model.norm == "layernorm",
        )
