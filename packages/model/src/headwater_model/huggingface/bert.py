"""BERT: an encoder with learned positions and token types, norms after each sum, a dense layer before the output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..gpt import Head
from ..model_config import ModelConfig
from .family import Family, Raw, activation, differing, refuse, written_activation
from .pairs import Pair, linear, norm, query_key_value


def read(raw: Raw) -> ModelConfig:
    """BertConfig -> shape."""
    refuse(raw, is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
    return ModelConfig(
        kind="encoder",
        layers=raw["num_hidden_layers"],
        hidden=raw["hidden_size"],
        heads=raw["num_attention_heads"],
        ffn=raw["intermediate_size"],
        vocab=raw["vocab_size"],
        context=raw["max_position_embeddings"],
        norm_eps=raw.get("layer_norm_eps", 1e-12),
        activation=activation(raw, "hidden_act", "gelu"),
        token_types=raw.get("type_vocab_size", 2),
        tie_embeddings=raw.get("tie_word_embeddings", True),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Shape -> BertConfig."""
    return {
        "attention_probs_dropout_prob": config.attention_dropout,
        "hidden_act": written_activation(config.activation),
        "hidden_dropout_prob": config.dropout,
        "hidden_size": config.hidden,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn_width,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "type_vocab_size": config.token_types,
    }


def objection(config: ModelConfig) -> str | None:
    """What a BERT does not have."""
    return differing(config, kind="encoder", head_width=config.hidden // config.heads)


def pairs(config: ModelConfig, head: Head) -> list[Pair]:
    """Weights of BertForMaskedLM."""
    embeddings, predictions = "bert.embeddings", "cls.predictions"
    tables = {"word": "word_embeddings", "position": "position_embeddings", "tokentype": "token_type_embeddings"}
    found = [
        *(Pair(f"embedding.{o}_embeddings.weight", (f"{embeddings}.{t}.weight",)) for o, t in tables.items()),
        *norm("embedding_norm", f"{embeddings}.LayerNorm", config),
        *linear("lm_head.dense", f"{predictions}.transform.dense", bias=True),
        *norm("lm_head.layer_norm", f"{predictions}.transform.LayerNorm", config),
        *_output(config, predictions),
    ]
    for layer in range(config.layers):
        ours, theirs = f"encoder.layers.{layer}", f"bert.encoder.layer.{layer}"
        attention = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
        found += query_key_value(f"{ours}.self_attention.linear_qkv", attention, config, bias=True)
        found += linear(f"{ours}.self_attention.linear_proj", f"{theirs}.attention.output.dense", bias=True)
        found += norm(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm", config)
        found += linear(f"{ours}.mlp.linear_fc1", f"{theirs}.intermediate.dense", bias=True)
        found += linear(f"{ours}.mlp.linear_fc2", f"{theirs}.output.dense", bias=True)
        found += norm(f"{ours}.mlp_norm", f"{theirs}.output.LayerNorm", config)
    return found


def modern(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first models call a norm's weight and bias gamma and beta."""
    return {name.replace(".gamma", ".weight").replace(".beta", ".bias"): weight for name, weight in weights.items()}


def _output(config: ModelConfig, predictions: str) -> list[Pair]:
    if config.tie_embeddings:
        return [Pair("output_layer.bias", (f"{predictions}.bias",))]
    return [
        Pair("output_layer.weight", (f"{predictions}.decoder.weight",)),
        # transformers keeps a second one, which is not used where the embeddings are not tied
        Pair("output_layer.bias", (f"{predictions}.decoder.bias", f"{predictions}.bias"), lambda b: (b, b.clone())),
    ]


FAMILY = Family(
    model_type="bert",
    architectures={"lm": "BertForMaskedLM"},
    base="bert.",
    read=read,
    write=write,
    objection=objection,
    pairs=pairs,
    ignored=(
        "embeddings.position_ids", "predictions.decoder.weight", "predictions.decoder.bias", "pooler.dense.weight",
        "pooler.dense.bias", "cls.seq_relationship.weight", "cls.seq_relationship.bias",
    ),
    modern=modern,
)  # fmt: skip
