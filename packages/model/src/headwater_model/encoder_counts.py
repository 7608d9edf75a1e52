"""What encoder-decoders (T5) and encoders (BERT) may be, and what they count in weights and FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model_config import ModelConfig

TARGET = 2 / 9  # of the context: T5's spans leave 0.85 + 0.05 of a window in the input, put 0.15 + 0.05 into the target
ASKED = 0.15  # of the positions: BERT's head sees no others


def check(model: ModelConfig) -> None:
    """Raise ValueError where options contradict the kind."""
    if model.position == "relative" and model.kind != "encoder_decoder":
        raise ValueError(f"position relative goes with kind encoder_decoder, not {model.kind}")
    if model.kind not in ("encoder_decoder", "encoder"):
        return
    needed: dict[str, tuple[Any, ...]] = {
        "kv_heads": (None, model.heads),
        "experts": (None,),
        "parallel_residual": (False,),
        "qkv_bias": (False,),
        "init": ("fan_in", "normal", "scaled", "small"),
    }
    if model.kind == "encoder_decoder":
        needed |= {"position": ("relative",), "biases": (False,)}
    else:
        needed |= {"position": ("learned",), "norm": ("layernorm",), "biases": (True,)}
    for name, values in needed.items():
        if (found := getattr(model, name)) not in values:
            raise ValueError(f"kind {model.kind} needs {name} {values[0]}, not {found}")
    if model.kind == "encoder" and model.gated:
        raise ValueError(f"kind encoder needs an activation without a gate, not {model.activation}")
    if model.relative_buckets % 2 or model.relative_distance <= model.relative_buckets // 2:
        raise ValueError("relative_buckets must be even, and relative_distance more than half of them")


def matrix_parameters(model: ModelConfig) -> int:
    """Weights that multiply a token somewhere: layers, head and output embedding."""
    output = model.vocab * model.hidden
    if model.kind == "encoder":
        return model.layers * (_attention(model) + _mlp(model)) + model.hidden**2 + output
    encoder = model.encoder_depth * (_attention(model) + _mlp(model))
    return encoder + model.layers * (2 * _attention(model) + _mlp(model)) + output


def parameters(model: ModelConfig) -> int:
    """All weights: matrices, biases, norms, and the tables of tokens, positions, distances and token types."""
    norm = model.hidden * (2 if model.norm == "layernorm" else 1)
    table = 0 if model.tie_embeddings else model.vocab * model.hidden
    if model.kind == "encoder":
        biases = 3 * model.heads * model.head_width + 2 * model.hidden + model.ffn_width
        layers = model.layers * (biases + 2 * norm)
        head = model.hidden + norm + model.vocab
        embeddings = table + (model.context + model.token_types) * model.hidden + norm
        return matrix_parameters(model) + layers + head + embeddings
    norms = (2 * model.encoder_depth + 3 * model.layers + 2) * norm
    return matrix_parameters(model) + table + norms + 2 * model.relative_buckets * model.heads


def flops_per_token(model: ModelConfig) -> int:
    """Training FLOPs a token of the context: 6 for each weight and token that it multiplies, and attention.

    Counted as in `ModelConfig.flops_per_token`. The decoder of an encoder-decoder sees 2/9 as many tokens as its
    encoder, but makes keys and values of all of them; a masked language model's head sees the masked ones.
    """
    inner = model.heads * model.head_width
    output = model.vocab * model.hidden
    if model.kind == "encoder":
        matrices = model.layers * (_attention(model) + _mlp(model)) + ASKED * (model.hidden**2 + output)
        return round(6 * matrices + 12 * model.layers * model.context * inner)
    encoder = model.encoder_depth * (_attention(model) + _mlp(model))
    crossing = model.layers * _attention(model) / 2
    decoder = model.layers * (1.5 * _attention(model) + _mlp(model)) + output
    scores = model.encoder_depth + model.layers * TARGET * (TARGET / 2 + 1)
    return round(6 * (encoder + crossing + TARGET * decoder) + 12 * scores * model.context * inner)


def _attention(model: ModelConfig) -> int:
    """Weights of query, key, value and output projection."""
    return 4 * model.hidden * model.heads * model.head_width


def _mlp(model: ModelConfig) -> int:
    return (3 if model.gated else 2) * model.hidden * model.ffn_width
