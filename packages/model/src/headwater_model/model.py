"""Any model of `ModelConfig`: a decoder, an encoder-decoder, an encoder."""

from __future__ import annotations

import torch

from . import bert, gpt, t5
from .bert import Bert
from .gpt import GPT, Head
from .model_config import ModelConfig
from .t5 import T5

Model = GPT | T5 | Bert


def build(config: ModelConfig, head: Head = "lm", dtype: torch.dtype = torch.float32, seed: int | None = None) -> Model:
    """Build the model, or this rank's part of it: see `gpt.build`.

    Raises:
        ValueError: the layout does not divide the model, or a scalar head on what is no decoder.
    """
    if config.kind in ("decoder", "prefix"):
        return gpt.build(config, head, dtype, seed)
    if head != "lm":
        raise ValueError(f"a model of kind {config.kind} has no scalar head")
    return (t5 if config.kind == "encoder_decoder" else bert).build(config, dtype, seed)


def build_chunks(config: ModelConfig, dtype: torch.dtype = torch.float32, seed: int | None = None) -> list[Model]:
    """This rank's parts of a language model, as many as `parallel.chunks` says; arguments as in `build`."""
    if config.kind in ("decoder", "prefix"):
        return list(gpt.build_chunks(config, "lm", dtype, seed))
    return [build(config, "lm", dtype, seed)]
