"""What transformers has no class for, such as linear biases or a prefix: the same folder under our own names.

Headwater reads it as any other; transformers says that it does not know the model type.
"""

from __future__ import annotations

from typing import Any

from .._contracts.config import resolved
from ..model_config import ModelConfig
from .family import Family, Raw


def read(raw: Raw) -> ModelConfig:
    """config.json -> shape."""
    return ModelConfig(**{**raw["model"], "dropout": 0.0, "attention_dropout": 0.0, "balance_loss": 0.0})


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> config.json."""
    return {"model": resolved(config)}


FAMILY = Family(
    model_type="headwater",
    architectures={"lm": "HeadwaterForCausalLM", "scalar": "HeadwaterForSequenceClassification"},
    base="",
    read=read,
    write=write,
    objection=lambda config: None,
    pairs=None,
)
