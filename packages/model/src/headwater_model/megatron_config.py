"""Headwater's configs in Megatron's terms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import headwater_model.cpu as cpu

import torch
import torch.nn.functional as F
from megatron.core.activations import squared_relu
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from . import kernels
from .model_config import Activation, ModelConfig
from .training_config import ParallelConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "squared_relu": squared_relu,  # Primer, arXiv:2109.08668
}


def megatron_config(config: ModelConfig, dtype: torch.dtype, parallel: ParallelConfig) -> TransformerConfig:
    """Megatron's config of the model with parameters of `dtype`, laid out as `parallel` says."""
    interleaved = parallel.chunks > 1
    experts = {} if config.experts is None else _experts(config, parallel)
    return TransformerConfig(
        num_layers=config.layers,
        hidden_size=config.hidden,
        num_attention_heads=config.heads,
        num_query_groups=config.key_value_heads,
        kv_channels=config.head_width,
        ffn_hidden_size=config.ffn_width,
        normalization={"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}[config.norm],
        layernorm_epsilon=config.norm_eps,
        gated_linear_unit=config.gated,
        activation_func=ACTIVATIONS[config.activation],
        add_bias_linear=config.biases,
        add_qkv_bias=config.qkv_bias,
        attention_dropout=config.attention_dropout,
        hidden_dropout=config.dropout,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=parallel.tensor,
        sequence_parallel=parallel.sequence,
        context_parallel_size=parallel.context,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.chunks if interleaved else None,
        # Megatron's dispatchers of tokens to experts: one wants a GPU, the other one length for all sequences. Without
        # experts it refuses the latter all the same.
        variable_seq_lengths=parallel.pipeline > 1 and not interleaved and not experts,
        moe_token_dispatcher_type="allgather" if experts else "alltoall",
        # Gloo has no batched point-to-point, and in the interleaved schedule of two ranks it mixes messages up: the
        # gradients are wrong without a word.
        batch_p2p_comm=cpu.HAS_CUDA and not interleaved,
        overlap_p2p_comm=interleaved,
        recompute_granularity=None if parallel.recompute == "none" else parallel.recompute,
        recompute_method="uniform" if parallel.recompute == "full" else None,
        recompute_num_layers=1 if parallel.recompute == "full" else None,
        use_cpu_initialization=True,
        perform_initialization=False,  # `initialise` does it
        gradient_accumulation_fusion=False,  # needs Apex
        calculate_per_token_loss=True,  # gradients are divided by the tokens of the whole batch
        **experts,
    )


def set_activation(model: nn.Module, activation: Activation) -> None:
    """Give the MLPs of a built model another activation; gated ones another gated one."""
    for module in model.modules():
        if isinstance(module, MLP):
            module._modules.pop("activation_func", None)  # a kernel's, which is a module
            module.activation_func = module.config.activation_func = ACTIVATIONS[activation]
            module.config.use_te_activation_func = False
    kernels.adopt(model)


def _experts(config: ModelConfig, parallel: ParallelConfig) -> dict:
    return {
        "num_moe_experts": config.experts,
        "moe_router_topk": config.experts_per_token,
        # The weights of several experts sum to 1 (Mixtral, arXiv:2401.04088); one keeps its share of all (Switch).
        "moe_router_pre_softmax": config.experts_per_token == 1,
        "moe_ffn_hidden_size": config.ffn_width,
        "moe_router_load_balancing_type": "aux_loss",
        # Context ranks each add their part of the loss, which Megatron weighs by a rank's tokens, not by all ranks'.
        "moe_aux_loss_coeff": config.balance_loss * parallel.context,
    }
