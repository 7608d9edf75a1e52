"""GPT-NeoX: rotary positions on a share of the channels, LayerNorm, biases, attention and MLP side by side."""

from __future__ import annotations

from typing import Any

from ..gpt import Head
from ..model_config import ModelConfig
from .family import Family, Raw, Unsupported, activation, differing, refuse, written_activation
from .pairs import Pair, linear, norm, output


def read(raw: Raw) -> ModelConfig:
    """GPTNeoXConfig -> shape."""
    refuse(raw, attention_bias=True)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if (kind := rope.get("rope_type", "default")) != "default":
        raise Unsupported(f"rotary positions of type {kind} are not supported")
    return ModelConfig(
        layers=raw["num_hidden_layers"],
        hidden=raw["hidden_size"],
        heads=raw["num_attention_heads"],
        ffn=raw["intermediate_size"],
        vocab=raw["vocab_size"],
        context=raw["max_position_embeddings"],
        rope_base=rope.get("rope_theta", raw.get("rotary_emb_base", 10_000.0)),
        rope_share=rope.get("partial_rotary_factor", raw.get("rotary_pct", 0.25)),
        norm="layernorm",
        norm_eps=raw["layer_norm_eps"],
        activation=activation(raw, "hidden_act", "gelu"),
        biases=True,
        parallel_residual=raw.get("use_parallel_residual", True),
        tie_embeddings=raw.get("tie_word_embeddings", False),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> GPTNeoXConfig."""
    return {
        "attention_bias": True,
        "attention_dropout": config.attention_dropout,
        "hidden_act": written_activation(config.activation),
        "hidden_dropout": config.dropout,
        "hidden_size": config.hidden,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn_width,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "rotary_emb_base": config.rope_base,
        "rotary_pct": config.rope_share,
        "use_parallel_residual": config.parallel_residual,
    }


def objection(config: ModelConfig) -> str | None:
    """What a GPT-NeoX does not have."""
    return differing(
        config, kind="decoder", position="rotary", rope_scaling=None, norm="layernorm", biases=True, gated=False,
        experts=None, key_value_heads=config.heads, head_width=config.hidden // config.heads,
    )  # fmt: skip


def pairs(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of GPTNeoXForCausalLM and GPTNeoXForSequenceClassification; Megatron keeps a head's query, key and
    value side by side just as they do."""
    found = [
        Pair("embedding.word_embeddings.weight", ("gpt_neox.embed_in.weight",)),
        *norm("decoder.final_layernorm", "gpt_neox.final_layer_norm", config),
        *output(head, config, "embed_out.weight"),  # its name in files; transformers 5 calls it lm_head in memory
    ]
    for layer in range(config.layers):
        ours, theirs = f"decoder.layers.{layer}", f"gpt_neox.layers.{layer}"
        found += norm(f"{ours}.input_layernorm", f"{theirs}.input_layernorm", config)
        found += linear(f"{ours}.self_attention.linear_qkv", f"{theirs}.attention.query_key_value", bias=True)
        found += linear(f"{ours}.self_attention.linear_proj", f"{theirs}.attention.dense", bias=True)
        found += norm(f"{ours}.pre_mlp_layernorm", f"{theirs}.post_attention_layernorm", config)
        found += linear(f"{ours}.mlp.linear_fc1", f"{theirs}.mlp.dense_h_to_4h", bias=True)
        found += linear(f"{ours}.mlp.linear_fc2", f"{theirs}.mlp.dense_4h_to_h", bias=True)
    return found


FAMILY = Family(
    model_type="gpt_neox",
    architectures={"lm": "GPTNeoXForCausalLM", "scalar": "GPTNeoXForSequenceClassification"},
    base="gpt_neox.",
    read=read,
    write=write,
    objection=objection,
    pairs=pairs,
    ignored=("embed_out.weight", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
)
