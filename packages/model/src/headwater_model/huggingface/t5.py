"""T5, versions 1.0 and 1.1: an encoder-decoder without biases, relative positions, one bias table for all layers.

T5 does not divide its scores by sqrt(head width), its query weights are smaller instead: ours are theirs times it.
Version 1.0 ties its embeddings and divides what the output embedding reads by sqrt(hidden); version 1.1 does neither.
transformers 5 writes of both that their embeddings are tied, and tells them apart by `scale_decoder_outputs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..gpt import Head
from ..model_config import Activation, ModelConfig
from .family import Family, Raw, Unsupported, differing
from .pairs import Pair, gate_and_up, linear, norm, query_key_value

FEED_FORWARD: dict[str, Activation] = {
    "relu": "relu",
    "relu2": "squared_relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gated-gelu": "geglu_tanh",
    "gated-silu": "swiglu",
}


def read(raw: Raw) -> ModelConfig:
    """T5Config -> shape."""
    mlp = raw.get("feed_forward_proj", "relu")
    if mlp not in FEED_FORWARD:
        raise Unsupported(f"feed_forward_proj {mlp} is not supported")
    return ModelConfig(
        kind="encoder_decoder",
        layers=raw.get("num_decoder_layers") or raw["num_layers"],
        encoder_layers=raw["num_layers"],
        hidden=raw["d_model"],
        heads=raw["num_heads"],
        head_width=raw["d_kv"],
        ffn=raw["d_ff"],
        vocab=raw["vocab_size"],
        context=raw.get("n_positions", 512),
        norm_eps=raw.get("layer_norm_epsilon", 1e-6),
        activation=FEED_FORWARD[mlp],
        relative_buckets=raw.get("relative_attention_num_buckets", 32),
        relative_distance=raw.get("relative_attention_max_distance", 128),
        tie_embeddings=raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings") is not False),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> T5Config."""
    return {
        "is_encoder_decoder": True,
        "d_ff": config.ffn_width,
        "d_kv": config.head_width,
        "d_model": config.hidden,
        "dropout_rate": config.dropout,
        "feed_forward_proj": {ours: theirs for theirs, ours in FEED_FORWARD.items()}[config.activation],
        "initializer_factor": 1.0,
        "layer_norm_epsilon": config.norm_eps,
        "n_positions": config.context,
        "num_decoder_layers": config.layers,
        "num_heads": config.heads,
        "num_layers": config.encoder_depth,
        "relative_attention_max_distance": config.relative_distance,
        "relative_attention_num_buckets": config.relative_buckets,
        "scale_decoder_outputs": config.tie_embeddings,
    }


def objection(config: ModelConfig) -> str | None:
    """What a T5 does not have."""
    if config.activation not in FEED_FORWARD.values():
        return f"activation {config.activation}"
    return differing(config, kind="encoder_decoder", norm="rmsnorm")


def pairs(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of T5ForConditionalGeneration."""
    relative = "relative_attention_bias.weight"
    found = [
        Pair("embedding.word_embeddings.weight", ("shared.weight",)),
        *([] if config.tie_embeddings else [Pair("output_layer.weight", ("lm_head.weight",))]),
    ]
    for stack, layers in (("encoder", config.encoder_depth), ("decoder", config.layers)):
        first = f"{stack}.block.0.layer.0.SelfAttention.{relative}"
        found.append(Pair(f"{stack}_relative_pos_emb.{relative}", (first,)))
        found += norm(f"{stack}.final_layernorm", f"{stack}.final_layer_norm", config)
        for layer in range(layers):
            found += _layer(config, f"{stack}.layers.{layer}", f"{stack}.block.{layer}.layer", stack == "decoder")
    return found


def modern(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Output embeddings that are the input's are in no file."""
    return {"lm_head.weight": weights["shared.weight"], **weights} if "shared.weight" in weights else weights


def _layer(config: ModelConfig, ours: str, theirs: str, decoder: bool) -> list[Pair]:
    own, last = f"{theirs}.0.SelfAttention", 2 if decoder else 1
    (together,) = query_key_value(
        f"{ours}.self_attention.linear_qkv", [f"{own}.{i}" for i in "qkv"], config, bias=False
    )
    mlp = f"{theirs}.{last}.DenseReluDense"
    found = [
        _scaled(together, config),
        *norm(f"{ours}.input_layernorm", f"{theirs}.0.layer_norm", config),
        *linear(f"{ours}.self_attention.linear_proj", f"{own}.o", bias=False),
        *norm(f"{ours}.pre_mlp_layernorm", f"{theirs}.{last}.layer_norm", config),
        *linear(f"{ours}.mlp.linear_fc2", f"{mlp}.wo", bias=False),
        *(
            gate_and_up(f"{ours}.mlp.linear_fc1", f"{mlp}.wi_0", f"{mlp}.wi_1", bias=False)
            if config.gated
            else linear(f"{ours}.mlp.linear_fc1", f"{mlp}.wi", bias=False)
        ),
    ]
    if decoder:
        cross, other = f"{ours}.cross_attention", f"{theirs}.1.EncDecAttention"
        found += [
            *norm(f"{ours}.pre_cross_attn_layernorm", f"{theirs}.1.layer_norm", config),
            _scaled(Pair(f"{cross}.linear_q.weight", (f"{other}.q.weight",)), config),
            _key_value(f"{cross}.linear_kv.weight", (f"{other}.k.weight", f"{other}.v.weight"), config),
            *linear(f"{cross}.linear_proj", f"{other}.o", bias=False),
        ]
    return found


def _scaled(pair: Pair, config: ModelConfig) -> Pair:
    """A pair whose first weight on the other side is the query's."""
    factor = config.head_width**0.5

    def split(whole: Tensor) -> list[Tensor]:
        query, *rest = pair.split(whole)
        return [query / factor, *rest]

    return Pair(pair.ours, pair.theirs, split, lambda parts: pair.join([parts[0] * factor, *parts[1:]]))


def _key_value(ours: str, theirs: tuple[str, str], config: ModelConfig) -> Pair:
    """Megatron keeps the key and the value of a head together."""

    def split(whole: Tensor) -> list[Tensor]:
        return [part.flatten(0, 1) for part in whole.view(config.heads, 2, config.head_width, -1).unbind(1)]

    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([part.view(config.heads, config.head_width, -1) for part in parts], 1).flatten(0, 2)

    return Pair(ours, theirs, split, join)


FAMILY = Family(
    model_type="t5",
    architectures={"lm": "T5ForConditionalGeneration"},
    base="",
    read=read,
    write=write,
    objection=objection,
    pairs=pairs,
    ignored=("embed_tokens.weight", "lm_head.weight", "EncDecAttention.relative_attention_bias.weight"),
    modern=modern,
)
