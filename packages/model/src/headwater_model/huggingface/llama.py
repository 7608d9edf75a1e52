"""Llama, and two that differ from it in one thing: Qwen 2 has biases in queries, keys and values, Mixtral experts."""

from __future__ import annotations

from typing import Any

from ..gpt import Head
from ..model_config import ModelConfig
from .family import Family, Raw, Unsupported, differing, refuse
from .pairs import Pair, gate_and_up, linear, norm, output, query_key_value

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What Megatron fixes of Llama 3.1's scaled rotary positions; their factor is free."""


def read(raw: Raw) -> ModelConfig:
    """LlamaConfig -> shape."""
    refuse(raw, hidden_act="silu")
    if bool(raw.get("attention_bias")) != bool(raw.get("mlp_bias")):
        raise Unsupported("attention_bias without mlp_bias, or the reverse, is not supported")
    return ModelConfig(**_shape(raw), biases=bool(raw.get("attention_bias")))


def read_qwen2(raw: Raw) -> ModelConfig:
    """Qwen2Config -> shape."""
    refuse(raw, hidden_act="silu", use_sliding_window=False)
    return ModelConfig(**_shape(raw), qkv_bias=True)


def read_mixtral(raw: Raw) -> ModelConfig:
    """MixtralConfig -> shape."""
    refuse(raw, hidden_act="silu", sliding_window=None, router_jitter_noise=0.0)
    if raw["num_experts_per_tok"] == 1:
        raise Unsupported("num_experts_per_tok 1 is not supported: one expert would be weighed otherwise")
    experts = raw.get("num_local_experts") or raw["num_experts"]
    return ModelConfig(
        **_shape(raw),
        experts=experts,
        experts_per_token=raw["num_experts_per_tok"],
        balance_loss=0.0,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> LlamaConfig."""
    raw: dict[str, Any] = {
        "attention_bias": config.biases,
        "attention_dropout": config.attention_dropout,
        "mlp_bias": config.biases,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.key_value_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
    }
    if config.rope_scaling is not None:
        raw["rope_scaling"] = {"rope_type": "llama3", "factor": config.rope_scaling, **LLAMA3}
    return raw


def write_qwen2(config: ModelConfig) -> dict[str, Any]:
    """Shape -> Qwen2Config."""
    return {**_without_biases(write(config)), "use_sliding_window": False}


def write_mixtral(config: ModelConfig) -> dict[str, Any]:
    """Shape -> MixtralConfig."""
    return _without_biases(write(config)) | {
        "num_local_experts": config.experts,
        "num_experts_per_tok": config.experts_per_token,
        "router_aux_loss_coef": config.balance_loss,
        "sliding_window": None,
    }


def objection(config: ModelConfig) -> str | None:
    """What a Llama does not have."""
    if config.qkv_bias and not config.biases:
        return "qkv_bias True"
    return differing(config, experts=None) or _objection(config)


def objection_qwen2(config: ModelConfig) -> str | None:
    """What a Qwen 2 does not have."""
    return differing(config, experts=None, qkv_bias=True, biases=False) or _objection(config)


def objection_mixtral(config: ModelConfig) -> str | None:
    """What a Mixtral does not have."""
    if config.experts is None or config.experts_per_token == 1:
        return f"experts {config.experts} of which {config.experts_per_token} a token"
    return differing(config, qkv_bias=False) or _objection(config)


def pairs(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of LlamaForCausalLM and LlamaForSequenceClassification, and of Qwen 2's, which have the same names."""
    found = _around(config, head)
    for layer in range(config.layers):
        ours, theirs = f"decoder.layers.{layer}", f"model.layers.{layer}"
        found += _attention(ours, theirs, config)
        mlp = f"{theirs}.mlp"
        found += gate_and_up(f"{ours}.mlp.linear_fc1", f"{mlp}.gate_proj", f"{mlp}.up_proj", config.biases)
        found += linear(f"{ours}.mlp.linear_fc2", f"{mlp}.down_proj", config.biases)
    return found


def pairs_mixtral(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of MixtralForCausalLM and MixtralForSequenceClassification, as files keep them."""
    found = _around(config, head)
    for layer in range(config.layers):
        ours, theirs = f"decoder.layers.{layer}", f"model.layers.{layer}"
        found += _attention(ours, theirs, config)
        found += linear(f"{ours}.mlp.router", f"{theirs}.block_sparse_moe.gate", bias=False)
        for expert in range(config.experts or 0):
            mlp, other = f"{ours}.mlp.experts.local_experts.{expert}", f"{theirs}.block_sparse_moe.experts.{expert}"
            found += gate_and_up(f"{mlp}.linear_fc1", f"{other}.w1", f"{other}.w3", bias=False)
            found += linear(f"{mlp}.linear_fc2", f"{other}.w2", bias=False)
    return found


def _shape(raw: Raw) -> dict[str, Any]:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "llama3":
        refuse(rope, **LLAMA3)
    elif kind != "default":
        raise Unsupported(f"rotary positions of type {kind} are not supported")
    return {
        "layers": raw["num_hidden_layers"],
        "hidden": raw["hidden_size"],
        "heads": raw["num_attention_heads"],
        "kv_heads": raw.get("num_key_value_heads"),
        "head_width": raw.get("head_dim") or 0,
        "ffn": raw["intermediate_size"],
        "vocab": raw["vocab_size"],
        "context": raw["max_position_embeddings"],
        "rope_base": raw.get("rope_theta") or rope.get("rope_theta", 10_000.0),
        "rope_scaling": rope["factor"] if kind == "llama3" else None,
        "norm_eps": raw["rms_norm_eps"],
        "tie_embeddings": raw.get("tie_word_embeddings", False),
    }


def _without_biases(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in ("attention_bias", "mlp_bias")}


def _objection(config: ModelConfig) -> str | None:
    if config.hidden % config.heads:
        return f"hidden {config.hidden} with {config.heads} heads"
    return differing(
        config, kind="decoder", position="rotary", rope_share=1.0, norm="rmsnorm", activation="swiglu",
        parallel_residual=False,
    )  # fmt: skip


def _around(config: ModelConfig, head: Head) -> list[Pair]:
    return [
        Pair("embedding.word_embeddings.weight", ("model.embed_tokens.weight",)),
        *norm("decoder.final_layernorm", "model.norm", config),
        *output(head, config, "lm_head.weight"),
    ]


def _attention(ours: str, theirs: str, config: ModelConfig) -> list[Pair]:
    apart = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
    return [
        *norm(f"{ours}.input_layernorm", f"{theirs}.input_layernorm", config),
        *query_key_value(f"{ours}.self_attention.linear_qkv", apart, config, config.biases or config.qkv_bias),
        *linear(f"{ours}.self_attention.linear_proj", f"{theirs}.self_attn.o_proj", config.biases),
        *norm(f"{ours}.pre_mlp_layernorm", f"{theirs}.post_attention_layernorm", config),
    ]


LLAMA = Family(
    model_type="llama",
    architectures={"lm": "LlamaForCausalLM", "scalar": "LlamaForSequenceClassification"},
    base="model.",
    read=read,
    write=write,
    objection=objection,
    pairs=pairs,
    ignored=("lm_head.weight", "rotary_emb.inv_freq"),
)
QWEN2 = Family(
    model_type="qwen2",
    architectures={"lm": "Qwen2ForCausalLM", "scalar": "Qwen2ForSequenceClassification"},
    base="model.",
    read=read_qwen2,
    write=write_qwen2,
    objection=objection_qwen2,
    pairs=pairs,
    ignored=("lm_head.weight",),
)
MIXTRAL = Family(
    model_type="mixtral",
    architectures={"lm": "MixtralForCausalLM", "scalar": "MixtralForSequenceClassification"},
    base="model.",
    read=read_mixtral,
    write=write_mixtral,
    objection=objection_mixtral,
    pairs=pairs_mixtral,
    ignored=("lm_head.weight",),
)
