"""One token for each row of a batch as a single call: `kernels_decode.cpp`.

A small model's token is some hundred calls through Megatron's modules, each longer than its work. Where the model has
the default architecture, on one rank of a CPU, this takes over once the prompt is in Megatron's cache, and goes on in
that cache. With 9M parameters in fp32 on one core, prompts of 32 tokens, in batches of 1 and of 16: 684 and 3,973
tokens a CPU second; through the modules 174 and 1,408.
"""

from __future__ import annotations

import ctypes

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn

from . import kernels, lora
from .attention import CoreAttention, SelfAttention
from .gpt import GPT


def fits(model: GPT) -> bool:
    """Whether the model is what the kernel computes: whole, on a CPU; RMSNorm, rotary halves, SwiGLU, no biases."""
    config = model.config
    ranks = (config.tensor_model_parallel_size, config.pipeline_model_parallel_size, config.context_parallel_size)
    return (
        kernels.usable(*model.parameters())
        and ranks == (1, 1, 1)
        and model.head == "lm"
        and model.position_embedding_type == "rope"
        and not config.rotary_interleaved
        and type(model.decoder.final_layernorm) is kernels.RMSNorm
        and all(_fits(layer) for layer in model.decoder.layers)
    )


def _fits(layer: nn.Module) -> bool:
    return (
        type(layer) is TransformerLayer
        and type(layer.self_attention) is SelfAttention
        and type(layer.self_attention.core_attention) is CoreAttention
        and type(layer.mlp) is MLP
        and type(layer.mlp.activation_func) is kernels.SwiGLU
        and type(layer.input_layernorm) is type(layer.pre_mlp_layernorm) is kernels.RMSNorm
        and set(lora.base_names(layer)) == _WEIGHTS
    )


def _packed(layer: nn.Module) -> list[Tensor]:
    attention, mlp = layer.self_attention, layer.mlp
    return [
        layer.input_layernorm.weight,
        kernels.pack(lora.effective(attention.linear_qkv)),
        kernels.pack(lora.effective(attention.linear_proj)),
        layer.pre_mlp_layernorm.weight,
        kernels.pack(lora.effective(mlp.linear_fc1)),
        kernels.pack(lora.effective(mlp.linear_fc2)),
    ]


_WEIGHTS = {
    "input_layernorm.weight",
    "self_attention.linear_qkv.weight",
    "self_attention.linear_proj.weight",
    "pre_mlp_layernorm.weight",
    "mlp.linear_fc1.weight",
    "mlp.linear_fc2.weight",
}


class Decoder:
    """The model's weights in the kernel's order, and the cache that Megatron filled with the prompt."""

    def __init__(
        self, model: GPT, cache: StaticInferenceContext, hidden: Tensor, packed: list[list[Tensor]] | None = None
    ):
        """
        Args:
            model: one that `fits`.
            cache: filled up to its `sequence_len_offset`; this object moves it on.
            hidden: bool [batch, positions], True at padding on the left.
            packed: that of an earlier object for the same model.
        """
        config = model.config
        self._cache = cache
        self._first = hidden.sum(-1).contiguous()
        self._table = model.embedding.word_embeddings.weight
        shared = model.share_embeddings_and_output_weights
        output = model.shared_embedding_or_output_weight() if shared else model.output_layer.weight
        self._ids = output.size(0)
        self.packed = packed or [*map(_packed, model.decoder.layers), [kernels.pack(output)]]
        """The weights in the kernel's order."""
        self._keep: list[Tensor] = []
        for number, weights in enumerate(self.packed[:-1], 1):
            self._keep += [*weights, *cache.key_value_memory_dict[number]]
        self._keep += [model.decoder.final_layernorm.weight, *self.packed[-1]]
        with torch.no_grad():
            angles = model.rotary_pos_emb(cache.max_sequence_length)[:, 0, 0]  # [positions, turned]
        self._cosine, self._sine = angles.cos(), angles.sin()
        heads, groups = config.num_attention_heads, config.num_query_groups
        self._shape = (
            config.num_layers, len(hidden), config.hidden_size, heads, groups, config.kv_channels,
            config.ffn_hidden_size, self._ids,
        )  # fmt: skip
        self._epsilon = float(config.layernorm_epsilon)

    def step(self, ids: Tensor) -> Tensor:
        """The logits after one more id a row.

        Args:
            ids: int64 [batch].

        Returns:
            float32 [batch, vocabulary].
        """
        at = self._cache.sequence_len_offset
        sizes = (ctypes.c_long * 10)(*self._shape, at, self._cosine.size(1))
        weights = (ctypes.c_void_p * len(self._keep))(*(t.data_ptr() for t in self._keep))
        logits = kernels.decode(
            self._table[ids], weights, self._cosine[at], self._sine[at], self._first, self._ids, sizes, self._epsilon
        )
        self._cache.sequence_len_offset += 1
        return logits
