"""OPT: GPT-2's layer with ReLU; its table of positions begins with two rows for padding."""

from __future__ import annotations

from typing import Any

from ..gpt import Head
from ..model_config import ModelConfig
from .family import Family, Raw, Unsupported, activation, differing, refuse, written_activation
from .pairs import Pair, linear, norm, output, query_key_value, shifted

OFFSET = 2


def read(raw: Raw) -> ModelConfig:
    """OPTConfig -> shape."""
    if (
        not raw.get("do_layer_norm_before", True)
        or raw.get("word_embed_proj_dim", raw["hidden_size"]) != raw["hidden_size"]
    ):
        raise Unsupported("norms after the blocks and projected embeddings, as opt-350m has them, are not supported")
    refuse(raw, _remove_final_layer_norm=False, enable_bias=True, layer_norm_elementwise_affine=True)
    return ModelConfig(
        layers=raw["num_hidden_layers"],
        hidden=raw["hidden_size"],
        heads=raw["num_attention_heads"],
        ffn=raw["ffn_dim"],
        vocab=raw["vocab_size"],
        context=raw["max_position_embeddings"],
        position="learned",
        norm="layernorm",
        activation=activation(raw, "activation_function", "relu"),
        biases=True,
        tie_embeddings=raw.get("tie_word_embeddings", True),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> OPTConfig."""
    return {
        "activation_function": written_activation(config.activation),
        "attention_dropout": config.attention_dropout,
        "do_layer_norm_before": True,
        "dropout": config.dropout,
        "enable_bias": True,
        "ffn_dim": config.ffn_width,
        "hidden_size": config.hidden,
        "init_std": 0.02,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "word_embed_proj_dim": config.hidden,
    }


def objection(config: ModelConfig) -> str | None:
    """What an OPT does not have; other activations than its own are left to GPT-2, which is the same but for those."""
    return differing(
        config, kind="decoder", position="learned", norm="layernorm", norm_eps=1e-5, activation="relu", biases=True,
        parallel_residual=False, experts=None, key_value_heads=config.heads, head_width=config.hidden // config.heads,
    )  # fmt: skip


def pairs(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of OPTForCausalLM and OPTForSequenceClassification."""
    found = [
        Pair("embedding.word_embeddings.weight", ("model.decoder.embed_tokens.weight",)),
        shifted("embedding.position_embeddings.weight", "model.decoder.embed_positions.weight", OFFSET),
        *norm("decoder.final_layernorm", "model.decoder.final_layer_norm", config),
        *output(head, config, "lm_head.weight"),
    ]
    for layer in range(config.layers):
        ours, theirs = f"decoder.layers.{layer}", f"model.decoder.layers.{layer}"
        apart = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
        found += norm(f"{ours}.input_layernorm", f"{theirs}.self_attn_layer_norm", config)
        found += query_key_value(f"{ours}.self_attention.linear_qkv", apart, config, bias=True)
        found += linear(f"{ours}.self_attention.linear_proj", f"{theirs}.self_attn.out_proj", bias=True)
        found += norm(f"{ours}.pre_mlp_layernorm", f"{theirs}.final_layer_norm", config)
        found += linear(f"{ours}.mlp.linear_fc1", f"{theirs}.fc1", bias=True)
        found += linear(f"{ours}.mlp.linear_fc2", f"{theirs}.fc2", bias=True)
    return found


FAMILY = Family(
    model_type="opt",
    architectures={"lm": "OPTForCausalLM", "scalar": "OPTForSequenceClassification"},
    base="model.",
    read=read,
    write=write,
    objection=objection,
    pairs=pairs,
    ignored=("lm_head.weight",),
)
