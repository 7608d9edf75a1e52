"""Hugging Face folders: how a model leaves Headwater, and how it comes back.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json

A language model is a LlamaForCausalLM, a scalar head a LlamaForSequenceClassification with one label.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from ._contracts import manifest as artefacts
from ._contracts.errors import UserError
from .config import ModelConfig
from .gpt import GPT, Head, build

WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
ARCHITECTURES: dict[Head, str] = {"lm": "LlamaForCausalLM", "scalar": "LlamaForSequenceClassification"}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Loaded:
    """A model with what is needed to use it."""

    model: GPT
    config: ModelConfig
    tokenizer: Tokenizer
    folder: Path

    @property
    def end_of_text(self) -> int:
        """Id that ends a document."""
        return end_of_text(self.tokenizer, self.folder)


def load(folder: Path, head: Head | None = None, dtype: torch.dtype = torch.float32) -> Loaded:
    """Read a folder written by `save`, or any Llama without biases in that form.

    Call `runtime.initialize` first. One rank, tensor parallel or data parallel.

    Args:
        head: None takes the folder's own. "scalar" on a language model starts a head of zeros in place of
            the output embedding; "lm" on a scalar model is refused.
        dtype: of the parameters in memory, whatever the file's.

    Raises:
        UserError: no such folder, no tokenizer, no weights, a file that is not what it should be.
    """
    folder = Path(folder)
    config, own = read_config(folder)
    tokenizer = read_tokenizer(folder)
    head = head or own
    if head == "lm" and own == "scalar":
        raise UserError(f"{folder}: a scalar model has no language-model head; name the model it was made from")
    if tokenizer.get_vocab_size() > config.vocab:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} ids, the model only {config.vocab}; "
            "they do not belong together"
        )
    model = build(config, head, dtype, seed=0)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    except (OSError, SafetensorError) as e:
        raise UserError(f"{folder / WEIGHTS}: not readable ({e}); export the model again") from None
    state = from_llama(weights, config, folder)
    if own != head:
        state["output_layer.weight"] = torch.zeros(1, config.hidden)
    _fill(model, state, folder)
    return Loaded(model, config, tokenizer, folder)


def save(folder: Path, model: GPT, config: ModelConfig, tokenizer_folder: Path, head: Head = "lm") -> None:
    """Write `model` (one rank, the whole model) in the type of its parameters, with the tokenizer's files.

    Args:
        folder: made if need be.
        tokenizer_folder: holds tokenizer.json and tokenizer_config.json; an export folder will do.

    Raises:
        UserError: no tokenizer there, or one with more ids than the model.
    """
    folder = Path(folder)
    tokenizer = read_tokenizer(tokenizer_folder)
    if tokenizer.get_vocab_size() > config.vocab:
        raise UserError(
            f"{tokenizer_folder}: {tokenizer.get_vocab_size()} ids, but the model has {config.vocab}; "
            "export with the tokenizer that made the training tokens"
        )
    folder.mkdir(parents=True, exist_ok=True)
    weights = to_llama({n: p.detach().cpu() for n, p in model.named_parameters()}, config, head)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    dtype = next(model.parameters()).dtype
    named = {name: tokenizer.token_to_id(token) for name, token in _special(tokenizer_folder).items()}
    ids = {name: number for name, number in named.items() if number is not None}
    artefacts.write_atomic(folder / "config.json", artefacts.canonical_json(_llama_config(config, head, dtype, ids)))
    artefacts.write_atomic(folder / "generation_config.json", artefacts.canonical_json({"do_sample": True, **ids}))
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(tokenizer_folder) / name, folder / name)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model or tokenizer folder.

    Raises:
        UserError: there is none, or it is not readable.
    """
    for name in TOKENIZER_FILES:
        if not (Path(folder) / name).is_file():
            raise UserError(f"{folder}: a model folder without a tokenizer ({name} is missing); copy it there")
    try:
        return Tokenizer.from_file(str(Path(folder) / TOKENIZER_FILES[0]))
    except Exception as e:  # tokenizers raises bare Exception
        raise UserError(f"{Path(folder) / TOKENIZER_FILES[0]}: no readable tokenizer ({e})") from None


def end_of_text(tokenizer: Tokenizer, folder: Path) -> int:
    """Id of <|endoftext|>, which ends a document.

    Raises:
        UserError: the tokenizer of `folder` has no such token.
    """
    found = tokenizer.token_to_id("<|endoftext|>")
    if found is None:
        raise UserError(f"{folder}: no token <|endoftext|>, which ends every document; train the tokenizer again")
    return found


def read_config(folder: Path) -> tuple[ModelConfig, Head]:
    """Shape and head from config.json.

    Raises:
        UserError: no config.json, or a model that is no plain Llama.
    """
    path = Path(folder) / "config.json"
    try:
        raw = json.loads(path.read_text())
        architecture = raw["architectures"][0]
        heads = {name: head for head, name in ARCHITECTURES.items()}
        if architecture not in heads:
            raise UserError(f"{path}: {architecture}; only {' and '.join(heads)} can be read")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if rope.get("rope_type", "default") != "default" or raw.get("attention_bias") or raw.get("mlp_bias"):
            raise UserError(f"{path}: scaled rotary positions and biases are not supported")
        return ModelConfig(
            layers=raw["num_hidden_layers"],
            hidden=raw["hidden_size"],
            heads=raw["num_attention_heads"],
            kv_heads=raw.get("num_key_value_heads"),
            ffn=raw["intermediate_size"],
            vocab=raw["vocab_size"],
            context=raw["max_position_embeddings"],
            rope_base=raw.get("rope_theta") or rope.get("rope_theta", 10_000.0),
            norm_eps=raw["rms_norm_eps"],
            tie_embeddings=raw.get("tie_word_embeddings", False),
        ), heads[architecture]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a model folder in Hugging Face's form is needed") from None
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise UserError(f"{path}: no usable model config ({type(e).__name__}: {e})") from None


def to_llama(state: dict[str, Tensor], config: ModelConfig, head: Head) -> dict[str, Tensor]:
    """Megatron's parameters under Hugging Face's names and in its layout.

    Megatron keeps query, key and value of one key/value group together, Hugging Face apart; gate and up
    projection lie in one matrix in the one, in two in the other. Rotary halves are the same in both.
    """
    groups, per, width = config.key_value_heads, config.heads // config.key_value_heads, config.head_width
    out: dict[str, Tensor] = {}
    for name, weight in state.items():
        if name.startswith("decoder.layers."):
            _, _, layer, rest = name.split(".", 3)
            prefix = f"model.layers.{layer}"
            if rest == "self_attention.linear_qkv.weight":
                grouped = weight.view(groups, per + 2, width, config.hidden)
                parts = {"q_proj": grouped[:, :per], "k_proj": grouped[:, per], "v_proj": grouped[:, per + 1]}
                for part, value in parts.items():
                    out[f"{prefix}.self_attn.{part}.weight"] = value.reshape(-1, config.hidden).contiguous()
            elif rest == "mlp.linear_fc1.weight":
                gate, up = weight.chunk(2)
                out[f"{prefix}.mlp.gate_proj.weight"] = gate.contiguous()
                out[f"{prefix}.mlp.up_proj.weight"] = up.contiguous()
            else:
                out[f"{prefix}.{_LAYER[rest]}"] = weight.contiguous()
        elif name == "output_layer.weight":
            out["score.weight" if head == "scalar" else "lm_head.weight"] = weight.contiguous()
        else:
            out[_TOP[name]] = weight.contiguous()
    return out


def from_llama(weights: dict[str, Tensor], config: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """The other way round: `to_llama`'s inverse.

    Raises:
        UserError: a weight is missing or has another shape than the config says.
    """
    groups, per, width = config.key_value_heads, config.heads // config.key_value_heads, config.head_width
    out: dict[str, Tensor] = {}
    try:
        for layer in range(config.layers):
            prefix, target = f"model.layers.{layer}", f"decoder.layers.{layer}"
            q = weights[f"{prefix}.self_attn.q_proj.weight"].view(groups, per, width, -1)
            k = weights[f"{prefix}.self_attn.k_proj.weight"].view(groups, 1, width, -1)
            v = weights[f"{prefix}.self_attn.v_proj.weight"].view(groups, 1, width, -1)
            out[f"{target}.self_attention.linear_qkv.weight"] = torch.cat([q, k, v], 1).flatten(0, 2)
            halves = [weights[f"{prefix}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
            out[f"{target}.mlp.linear_fc1.weight"] = torch.cat(halves)
            for ours, theirs in _LAYER.items():
                out[f"{target}.{ours}"] = weights[f"{prefix}.{theirs}"]
        for ours, theirs in _TOP.items():
            out[ours] = weights[theirs]
    except KeyError as e:
        raise UserError(f"{folder / WEIGHTS}: {e.args[0]} is missing; the export is not whole") from None
    except RuntimeError as e:
        raise UserError(f"{folder / WEIGHTS}: weights of another shape than config.json says ({e})") from None
    for theirs in ("lm_head.weight", "score.weight"):
        if theirs in weights:
            out["output_layer.weight"] = weights[theirs]
    return out


_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
}
_TOP = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
}


@torch.no_grad()
def _fill(model: GPT, state: dict[str, Tensor], folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if name not in state or state[name].shape != parameter.shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise UserError(f"{folder / WEIGHTS}: {name} is {found}, not {tuple(parameter.shape)} as config.json says")
        parameter.copy_(state[name])


def _special(folder: Path) -> dict[str, str]:
    """Hugging Face's names of special ids -> tokens, where the tokenizer's config has them."""
    raw = json.loads((Path(folder) / TOKENIZER_FILES[1]).read_text())
    named = {f"{name}_token_id": raw.get(f"{name}_token") for name in ("bos", "eos", "pad")}
    tokens = {name: t["content"] if isinstance(t, dict) else t for name, t in named.items() if t}
    return tokens


def _llama_config(config: ModelConfig, head: Head, dtype: torch.dtype, ids: dict[str, int]) -> dict:
    names = {dtype: name for name, dtype in TYPES.items()}
    raw = {
        "architectures": [ARCHITECTURES[head]],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
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
        "tie_word_embeddings": config.tie_embeddings and head == "lm",
        "torch_dtype": names[dtype],
        "use_cache": True,
        "vocab_size": config.vocab,
        **ids,
    }
    if head == "scalar":
        raw |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}, "problem_type": "regression"}
    return raw
