"""Weights in any layout: each is drawn, or read, whole and under its global name, and every rank keeps its part.

How weights are drawn, by `ModelConfig.init` (d: hidden, L: layers; normal with mean 0; biases 0, norms 1):

  fan_in   std 1/sqrt(fan in), embeddings 0.02, residual writers divided by sqrt(2L)
  normal   std init_std (0.02: GPT, Radford et al. 2018, section 4.1)
  scaled   the same, residual writers divided by sqrt(2L) (GPT-2, Radford et al. 2019, section 2.3)
  small    std sqrt(2 / 5d) (Nguyen and Salazar, arXiv:1910.05895, section 2.2)
  t_fixup  std sqrt(2 / (fan in + fan out)) (Xavier), embeddings d^-1/2 (9L)^-1/4, values, attention outputs and MLPs
           times 0.67 L^-1/4 (T-Fixup, Huang et al. 2020, section 3.3: the embeddings and the encoder, the block without
           cross-attention; the norms, which the paper takes out, stay)

Residual writers are the matrices of a layer whose output is added to the residual stream. T5's embeddings have std 1
and its biases of relative positions 1/sqrt(d), whatever `init`, as in the authors' code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from torch import Tensor, nn

from .model_config import ModelConfig

CHECKPOINT_NAMES = {
    "self_attention.linear_qkv.layer_norm_": "input_layernorm.",
    "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm.",
}
Source = Callable[[str, tuple[int, ...], tuple[int, ...]], Tensor]


@torch.no_grad()
def fill(model: nn.Module, source: Source, ending: str = "") -> None:
    """Set every weight of this rank's part of `model` to its part of a whole weight.

    Args:
        ending: only weights whose names end so.
        source: (name in Megatron's distributed checkpoints, indices of layer and expert, shape of the whole weight)
            -> the whole weight, float.
    """
    for part in shards(model.sharded_state_dict()):  # type: ignore[operator]
        weight = part.data
        if weight is None or not torch.is_tensor(weight) or not weight.is_floating_point():
            continue
        if not part.key.endswith(ending):
            continue
        lead = part.prepend_axis_num
        whole = source(part.key, tuple(part.global_offset[:lead]), tuple(part.global_shape[lead:]))
        place = tuple(slice(o, o + n) for o, n in zip(part.global_offset[lead:], weight.shape, strict=True))
        weight.copy_(whole[place])


def parameter_name(name: str, index: tuple[int, ...]) -> str:
    """The name that a weight of Megatron's distributed checkpoints has as a parameter of the whole model."""
    for theirs, ours in CHECKPOINT_NAMES.items():
        name = name.replace(theirs, ours)
    if index:
        name = name.replace("coder.layers.", f"coder.layers.{index[0]}.")  # of the decoder or of the encoder
    if len(index) > 1:
        name = name.replace("mlp.experts.experts.", f"mlp.experts.local_experts.{index[1]}.")
    return name


def initialise(model: nn.Module, config: ModelConfig, seed: int, head: str) -> None:
    """Draw every weight from a generator of its own, seeded by `seed` and the weight's global name.

    So ranks of any layout hold parts of the very weights that one rank would hold. A scalar head starts at 0.
    """

    def drawn(name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
        if name.endswith("bias") or (head == "scalar" and name.startswith("output_layer")):
            return torch.zeros(shape)
        if len(shape) == 1:
            return torch.ones(shape)
        return draw(seed, name, index, shape) * scale(name, shape, config)

    fill(model, drawn)


def draw(seed: int, name: str, index: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers that depend on the seed and the weight's global name alone, float32."""
    digest = hashlib.sha256(f"{seed} {name} {list(index)}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator)


def scale(name: str, shape: tuple[int, ...], config: ModelConfig) -> float | Tensor:
    """Standard deviation of a matrix [out, in]: one number, or a column with one a row, float32 [out, 1]."""
    if config.kind == "encoder_decoder" and ("embeddings" in name or "relative" in name):
        return 1.0 if "embeddings" in name else config.hidden**-0.5
    embedding = "embeddings" in name or name.startswith("output_layer")
    writer = "linear_proj" in name or "linear_fc2" in name
    residual = (2 * config.layers) ** -0.5 if writer else 1.0
    if config.init == "fan_in":
        return 0.02 if embedding else shape[-1] ** -0.5 * residual
    if config.init == "normal":
        return config.init_std or 0.02
    if config.init == "scaled":
        return (config.init_std or 0.02) * residual
    if config.init == "small":
        return (2 / (5 * config.hidden)) ** 0.5
    if "embeddings" in name:
        return config.hidden**-0.5 * (9 * config.layers) ** -0.25
    factor = 0.67 * config.layers**-0.25
    if "linear_qkv" in name:
        return _by_query_key_value(config, factor)
    # The two halves of a gated MLP are matrices of their own.
    fan_out = config.ffn_width if "linear_fc1" in name else shape[0]
    return (2 / (fan_out + shape[1])) ** 0.5 * (factor if writer or "linear_fc1" in name else 1.0)


def _by_query_key_value(config: ModelConfig, factor: float) -> Tensor:
    """T-Fixup's scale of each row of the one matrix in which Megatron keeps a group's queries, its key, its value."""
    query, key = ((2 / (n * config.head_width + config.hidden)) ** 0.5 for n in (config.heads, config.key_value_heads))
    group = [query] * (config.heads // config.key_value_heads) + [key, key * factor]
    return torch.tensor(group).repeat_interleave(config.head_width).repeat(config.key_value_heads)[:, None]


def shards(state: Any) -> list[ShardedTensor]:
    """The sharded tensors of a state dict, factories (the two halves of a gated MLP) taken apart."""
    found: list[ShardedTensor] = []
    for value in state.values() if isinstance(state, dict) else state:
        if isinstance(value, ShardedTensorFactory):
            found += shards(value.build())
        elif isinstance(value, ShardedTensor):
            found.append(value)
        elif isinstance(value, dict | list):
            found += shards(value)
    return found
