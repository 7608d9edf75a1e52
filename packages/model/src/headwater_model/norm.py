"""Normalisation whose gradient is summed where tensor-parallel ranks split the positions; Megatron's refuses that."""

from __future__ import annotations

from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

from megatron.core.transformer.transformer_config import TransformerConfig
from torch import nn


class Norm:
    """The norm of a layer spec: torch's RMSNorm or LayerNorm, as `config.normalization` says.

    A class that makes another, since Megatron builds modules from classes and hands functions on as they are.
    """

    def __new__(cls, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> nn.Module:  # type: ignore[misc]
        """Over the last axis, of `hidden_size`."""
        kinds: dict[str, type[nn.RMSNorm | nn.LayerNorm]] = {"RMSNorm": nn.RMSNorm, "LayerNorm": nn.LayerNorm}
        module = kinds[config.normalization](hidden_size, eps=eps)
        for weight in module.parameters():
            weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        return module
