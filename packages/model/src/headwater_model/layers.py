"""One layer as Megatron builds it: the modules at its extension points, and the parallel residual."""

from __future__ import annotations

from functools import partial
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler, get_moe_layer_wise_logging_tracker
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor

from .attention import CoreAttention, SelfAttention
from .model_config import ModelConfig
from .norm import Norm


def block_spec(config: ModelConfig, layers: int) -> TransformerBlockSubmodules:
    """What the `layers` layers of this rank, and the norm after the last of the model, are made of."""
    return TransformerBlockSubmodules(layer_specs=[layer_spec(config)] * layers, layer_norm=Norm)


def layer_spec(config: ModelConfig) -> ModuleSpec:
    """What each layer of `config` is made of."""
    spec = get_gpt_layer_local_spec(num_experts=config.experts, normalization="RMSNorm")
    core = partial(CoreAttention, alibi=True) if config.position == "alibi" else CoreAttention
    spec.submodules.self_attention.module = SelfAttention
    spec.submodules.self_attention.submodules.core_attention = core
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = Norm
    if config.experts:
        spec.submodules.mlp.submodules.router = Router
    if config.parallel_residual:
        spec.module = ParallelResidualLayer
    return spec


class Router(TopKRouter):
    """Megatron's choice of experts, its logits in float32 by a plain product (Megatron's own one needs Transformer
    Engine: without it, 0.16.1 stops at an undefined name)."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if MoEAuxLossAutoScaler.main_loss_backward_scale is None:
            # Of the shape that Megatron's schedules set. A backward pass outside them, if it came first, would set
            # another one, and they would fail from then on.
            MoEAuxLossAutoScaler.set_loss_scale(torch.ones(1, device=cpu.DEVICE))

    def gating(self, input: Tensor) -> Tensor:
        """[positions, batch, hidden] -> float32 [positions, batch, experts]."""
        # Megatron's log of balance losses, which nothing here reads, has the layers of the process's first model.
        get_moe_layer_wise_logging_tracker().clear()
        return F.linear(input.float(), self.weight.float())


class ParallelResidualLayer(TransformerLayer):
    """x + attention(norm(x)) + mlp(other norm(x)) (GPT-NeoX-20B, arXiv:2204.06745, section 2.1.2)."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        """Shapes as in `TransformerLayer.forward`: hidden_states [positions, batch, hidden]."""
        kwargs.pop("dynamic_inference_decode_only", None)
        attended, context = self._forward_attention(hidden_states, *args, **kwargs)
        mlp = self.mlp(self._forward_pre_mlp_layernorm(hidden_states))
        return self._forward_post_mlp(mlp, attended), context
