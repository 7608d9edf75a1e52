"""Low-rank adapters: which matrices get one, and how large it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ._contracts.config import Config
from .model_config import ModelConfig

Target = Literal["qkv", "attention_out", "mlp_in", "mlp_out"]
TARGETS: tuple[Target, ...] = ("qkv", "attention_out", "mlp_in", "mlp_out")


class LoraConfig(Config):
    """W + alpha / rank B A in place of W, of which only A and B learn (Hu et al., arXiv:2106.09685, section 4.1).

    The paper adapts queries and values (section 4.2); that all linear layers are needed to reach full fine-tuning was
    found later (QLoRA, arXiv:2305.14314, section 4), and is the default here.
    """

    rank: int = Field(16, ge=1, description="rows of A, columns of B")
    alpha: float = Field(32.0, gt=0, description="alpha / rank multiplies B A")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of an adapter's inputs that is dropped in training")
    targets: tuple[Target, ...] = Field(TARGETS, min_length=1, description="linear layers of every block that get one")

    @field_validator("targets")
    @classmethod
    def _once(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        return tuple(name for name in TARGETS if name in targets)

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank

    def parameters(self, shape: ModelConfig) -> int:
        """Weights of all adapters: rank x (inputs + outputs) a matrix. Queries, keys and values are one matrix here,
        and so are the two halves of a gated MLP: one A each. Every expert has its own."""
        heads, groups, width = shape.heads, shape.key_value_heads, shape.head_width
        experts, halves = shape.experts or 1, 2 if shape.gated else 1
        sides = {
            "qkv": shape.hidden + (heads + 2 * groups) * width,
            "attention_out": heads * width + shape.hidden,
            "mlp_in": experts * (shape.hidden + halves * shape.ffn_width),
            "mlp_out": experts * (shape.ffn_width + shape.hidden),
        }
        return shape.layers * self.rank * sum(sides[name] for name in self.targets)

    def describe(self, shape: ModelConfig) -> str:
        """How much of a model is trained, in a line."""
        adapters, whole = self.parameters(shape), shape.parameters
        return f"LoRA rank {self.rank} on {', '.join(self.targets)}: {adapters:,} weights beside {whole:,} frozen ones"
