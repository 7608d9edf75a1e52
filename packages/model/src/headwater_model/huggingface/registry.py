"""All families, by the class that config.json names and by what a shape needs."""

from __future__ import annotations

from ..gpt import Head
from ..model_config import ModelConfig
from . import bert, gpt2, llama, native, neox, opt, t5
from .family import Family

FAMILIES = (
    llama.LLAMA, llama.QWEN2, llama.MIXTRAL, neox.FAMILY, opt.FAMILY, gpt2.FAMILY, t5.FAMILY, bert.FAMILY,
    native.FAMILY,
)  # fmt: skip
"""The first one that a shape fits into is the one that it is written as; the last one takes all."""
ARCHITECTURES: dict[str, tuple[Family, Head]] = {
    name: (family, head) for family in FAMILIES for head, name in family.architectures.items()
}


def family_for(config: ModelConfig) -> Family:
    """The family that a shape is written as."""
    return next(family for family in FAMILIES if family.objection(config) is None)
