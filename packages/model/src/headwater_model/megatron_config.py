"""Headwater's configs in Megatron's terms."""

from __future__ import annotations

import headwater_model.cpu as cpu

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from .model_config import ModelConfig
from .training_config import ParallelConfig


def megatron_config(config: ModelConfig, dtype: torch.dtype, parallel: ParallelConfig) -> TransformerConfig:
    """Megatron's config of the model with parameters of `dtype`, laid out as `parallel` says."""
    interleaved = parallel.chunks > 1
    return TransformerConfig(
        num_layers=config.layers,
        hidden_size=config.hidden,
        num_attention_heads=config.heads,
        num_query_groups=config.key_value_heads,
        ffn_hidden_size=config.ffn_width,
        normalization="RMSNorm",
        layernorm_epsilon=config.norm_eps,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=parallel.tensor,
        sequence_parallel=parallel.sequence,
        context_parallel_size=parallel.context,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.chunks if interleaved else None,
        variable_seq_lengths=parallel.pipeline > 1 and not interleaved,
        moe_token_dispatcher_type="alltoall",  # no experts here, but Megatron refuses its default with the line above
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
    )
