"""GPT-2: learned positions, LayerNorm, biases, matrices kept as [in, out]."""

from __future__ import annotations

from typing import Any

from ..gpt import Head
from ..model_config import ModelConfig
from .family import Family, Raw, activation, differing, refuse, written_activation
from .pairs import Pair, norm, output, stacked_query_key_value, transposed


def read(raw: Raw) -> ModelConfig:
    """GPT2Config -> shape."""
    refuse(raw, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return ModelConfig(
        layers=raw["n_layer"],
        hidden=raw["n_embd"],
        heads=raw["n_head"],
        ffn=raw.get("n_inner") or 4 * raw["n_embd"],
        vocab=raw["vocab_size"],
        context=raw.get("n_positions") or raw["n_ctx"],
        position="learned",
        norm="layernorm",
        norm_eps=raw.get("layer_norm_epsilon", 1e-5),
        activation=activation(raw, "activation_function", "gelu_new"),
        biases=True,
        tie_embeddings=raw.get("tie_word_embeddings", True),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> GPT2Config."""
    return {
        "activation_function": written_activation(config.activation),
        "attn_pdrop": config.attention_dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "initializer_range": 0.02,
        "layer_norm_epsilon": config.norm_eps,
        "n_embd": config.hidden,
        "n_head": config.heads,
        "n_inner": config.ffn_width,
        "n_layer": config.layers,
        "n_positions": config.context,
    }


def objection(config: ModelConfig) -> str | None:
    """What a GPT-2 does not have."""
    return differing(
        config, kind="decoder", position="learned", norm="layernorm", biases=True, parallel_residual=False, gated=False,
        experts=None, key_value_heads=config.heads, head_width=config.hidden // config.heads,
    )  # fmt: skip


def pairs(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of GPT2LMHeadModel and GPT2ForSequenceClassification."""
    found = [
        Pair("embedding.word_embeddings.weight", ("transformer.wte.weight",)),
        Pair("embedding.position_embeddings.weight", ("transformer.wpe.weight",)),
        *norm("decoder.final_layernorm", "transformer.ln_f", config),
        *output(head, config, "lm_head.weight"),
    ]
    for layer in range(config.layers):
        ours, theirs = f"decoder.layers.{layer}", f"transformer.h.{layer}"
        found += norm(f"{ours}.input_layernorm", f"{theirs}.ln_1", config)
        found += stacked_query_key_value(f"{ours}.self_attention.linear_qkv", f"{theirs}.attn.c_attn", config)
        found += transposed(f"{ours}.self_attention.linear_proj", f"{theirs}.attn.c_proj")
        found += norm(f"{ours}.pre_mlp_layernorm", f"{theirs}.ln_2", config)
        found += transposed(f"{ours}.mlp.linear_fc1", f"{theirs}.mlp.c_fc")
        found += transposed(f"{ours}.mlp.linear_fc2", f"{theirs}.mlp.c_proj")
    return found


FAMILY = Family(
    model_type="gpt2",
    architectures={"lm": "GPT2LMHeadModel", "scalar": "GPT2ForSequenceClassification"},
    base="transformer.",
    read=read,
    write=write,
    objection=objection,
    pairs=pairs,
    ignored=("lm_head.weight", ".attn.bias", ".attn.masked_bias"),  # the last two are the causal mask
)
