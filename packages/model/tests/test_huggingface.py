"""Models come from transformers and go back to it with the same logits; what is no model is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from headwater_model import forward, gpt, pretrained
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig

SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512,
    "max_position_embeddings": 32, "intermediate_size": 96, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GPT2 = {**SIZES, "n_inner": None}
GROUPED = {**SIZES, "num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
THEIRS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED, rope_parameters=LLAMA3),
    "llama with biases": lambda: transformers.LlamaConfig(**SIZES, head_dim=24, attention_bias=True, mlp_bias=True),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "mixtral": lambda: transformers.MixtralConfig(**GROUPED, num_local_experts=4),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "gpt2 untied": lambda: transformers.GPT2Config(**GPT2, tie_word_embeddings=False, activation_function="gelu"),
    "neox": lambda: transformers.GPTNeoXConfig(**SIZES),
    "neox in sequence": lambda: transformers.GPTNeoXConfig(
        **SIZES,
        use_parallel_residual=False,
        hidden_act="gelu_fast",
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.5},
    ),
    "opt": lambda: transformers.OPTConfig(**SIZES, ffn_dim=96),
}
LLAMA: dict[str, Any] = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 512, "context": 32}
OPENAI: dict[str, Any] = {**LLAMA, "position": "learned", "norm": "layernorm", "biases": True, "tie_embeddings": True}
OURS: dict[str, tuple[str, ModelConfig]] = {
    "grouped queries": ("LlamaForCausalLM", ModelConfig(**LLAMA, kv_heads=2)),
    "tied embeddings": ("LlamaForCausalLM", ModelConfig(**LLAMA, tie_embeddings=True)),
    "odd sizes": (
        "LlamaForCausalLM",
        ModelConfig(layers=3, hidden=48, heads=3, kv_heads=1, ffn=100, vocab=640, context=24, rope_base=5e5),
    ),
    "biases of queries": ("Qwen2ForCausalLM", ModelConfig(**LLAMA, kv_heads=1, qkv_bias=True)),
    "experts": ("MixtralForCausalLM", ModelConfig(**LLAMA, experts=3)),
    "gelu": ("GPT2LMHeadModel", ModelConfig(**OPENAI, activation="gelu_tanh")),
    "squared relu": ("GPT2LMHeadModel", ModelConfig(**OPENAI, activation="squared_relu", norm_eps=1e-6)),
    "relu": ("OPTForCausalLM", ModelConfig(**OPENAI, activation="relu")),
    "parallel residual": (
        "GPTNeoXForCausalLM",
        ModelConfig(
            **LLAMA, rope_share=0.5, norm="layernorm", biases=True, activation="gelu", parallel_residual=True, ffn=100
        ),
    ),
}


def disturb(model: torch.nn.Module) -> None:
    """Weights far from their start, so that a swapped or missing one shows."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)


def random_model(shape: ModelConfig, head: pretrained.Head = "lm") -> gpt.GPT:
    model = gpt.build(shape, head=head, seed=2)
    disturb(model)
    return model


def save_theirs(config: Any, folder: Path, tokenizer: Path, scalar: bool = False, **options: Any) -> Any:
    """A random model of transformers, and its folder with a tokenizer beside it."""
    config.num_labels = 1
    torch.manual_seed(0)
    theirs = (AutoModelForSequenceClassification if scalar else AutoModelForCausalLM).from_config(config).eval()
    disturb(theirs)
    theirs.save_pretrained(folder, **options)
    for name in pretrained.TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    return theirs


def ids(rows: int, size: int, vocabulary: int = 512) -> torch.Tensor:
    return torch.randint(10, vocabulary, (rows, size), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(theirs: Any, ours: gpt.GPT, tokens: torch.Tensor) -> float:
    """Largest one between logits, or between scores of the last position."""
    expected = theirs.eval()(tokens).logits
    assert expected.abs().max() > 0.01
    found = forward.logits(ours, tokens) if ours.head == "lm" else forward.values(ours, tokens)[:, -1:]
    return (found - expected).abs().max().item()


@pytest.mark.parametrize("scalar", [False, True], ids=["lm", "scalar"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_model_of_transformers_has_the_same_logits_here_and_back_there(
    name: str, scalar: bool, tokenizer_folder: Path, tmp_path: Path
) -> None:
    there, back, tokens = tmp_path / "there", tmp_path / "back", ids(2, 30)
    theirs = save_theirs(THEIRS[name](), there, tokenizer_folder, scalar)
    loaded = pretrained.load(there)
    assert loaded.model.head == ("scalar" if scalar else "lm")
    assert difference(theirs, loaded.model, tokens) < 1e-4
    written = pretrained.save(back, loaded.model, loaded.config, there, loaded.model.head)
    assert written == type(theirs).__name__
    returned = type(theirs).from_pretrained(back, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), returned.parameters(), strict=True)) or (
        name == "opt"  # two rows of its table of positions are never used
    )
    assert difference(returned, loaded.model, tokens) < 1e-4


@pytest.mark.parametrize("name", OURS)
def test_a_model_from_here_has_the_same_logits_in_transformers(name: str, tokenizer_folder, tmp_path) -> None:
    architecture, shape = OURS[name]
    model = random_model(shape)
    assert pretrained.save(tmp_path, model, shape, tokenizer_folder, "lm") == architecture
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(theirs).__name__ == architecture
    assert difference(theirs, model, ids(3, shape.context, shape.vocab)) < 1e-4
    unused = 2 * shape.hidden if architecture.startswith("OPT") else 0
    assert sum(p.numel() for p in theirs.parameters()) == shape.parameters + unused


UNKNOWN_THERE: dict[str, dict[str, Any]] = {
    "alibi": {"position": "alibi", "norm": "layernorm"},
    "sinusoidal": {"position": "sinusoidal", "activation": "geglu"},
    "prefix": {"kind": "prefix"},
    "switch": {"experts": 3, "experts_per_token": 1, "dropout": 0.1},
}


SHAPES = {name: shape for name, (_, shape) in OURS.items()}
SHAPES |= {name: ModelConfig(**LLAMA, **fields) for name, fields in UNKNOWN_THERE.items()}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_read_back_it_is_the_same_model(shape: ModelConfig, tokenizer_folder: Path, tmp_path: Path) -> None:
    model = random_model(shape)
    written = pretrained.save(tmp_path, model, shape, tokenizer_folder, "lm")
    loaded = pretrained.load(tmp_path)
    left_out = {"dropout": 0.0, "balance_loss": 0.0}
    filled = {"kv_heads": shape.kv_heads, "ffn": shape.ffn, **left_out}
    assert loaded.config.model_copy(update=filled) == shape.model_copy(update=left_out)
    assert loaded.config.parameters == shape.parameters and loaded.model.kind == shape.kind
    for (name, before), (_, after) in zip(model.named_parameters(), loaded.model.named_parameters(), strict=True):
        assert torch.equal(before, after), name
    if written.startswith("Headwater"):
        with pytest.raises(ValueError, match="headwater"):
            AutoModelForCausalLM.from_pretrained(tmp_path)


def test_transformers_gives_the_same_values_of_a_scalar_head_on_a_language_model(tokenizer_folder, tmp_path) -> None:
    for name, (_, shape) in OURS.items():
        folder = tmp_path / name
        pretrained.save(folder / "lm", random_model(shape), shape, tokenizer_folder, "lm")
        loaded = pretrained.load(folder / "lm", head="scalar")
        assert not loaded.model.output_layer.weight.any()
        torch.nn.init.normal_(loaded.model.output_layer.weight)
        pretrained.save(folder / "scalar", loaded.model, loaded.config, folder / "lm", "scalar")
        theirs = AutoModelForSequenceClassification.from_pretrained(folder / "scalar", dtype=torch.float32)
        assert difference(theirs, loaded.model, ids(2, 20)) < 1e-4, name


def test_weights_in_several_files_and_in_half_the_bits_are_read(tokenizer_folder: Path, tmp_path: Path) -> None:
    theirs = save_theirs(THEIRS["gpt2"](), tmp_path / "many", tokenizer_folder, max_shard_size="150KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    assert difference(theirs, pretrained.load(tmp_path / "many").model, ids(2, 20)) < 1e-4
    config = THEIRS["llama"]()
    config.dtype = torch.bfloat16
    theirs = save_theirs(config, tmp_path / "half", tokenizer_folder).to(torch.float32)
    with safe_open(tmp_path / "half" / pretrained.WEIGHTS, "pt") as file:
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16
    assert difference(theirs, pretrained.load(tmp_path / "half").model, ids(2, 20)) < 1e-4
    next((tmp_path / "many").glob("model-*.safetensors")).unlink()
    with pytest.raises(UserError, match="model-0000.*not readable"):
        pretrained.load(tmp_path / "many")


def test_files_of_the_bare_model_with_its_old_constants_are_read(tokenizer_folder: Path, tmp_path: Path) -> None:
    """As openai-community/gpt2 has them: no prefix, and the causal mask among the weights."""
    theirs = save_theirs(THEIRS["gpt2"](), tmp_path, tokenizer_folder)
    with safe_open(tmp_path / pretrained.WEIGHTS, "pt") as file:
        weights = {n.removeprefix("transformer."): file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    weights["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    save_file(weights, tmp_path / pretrained.WEIGHTS)
    assert difference(theirs, pretrained.load(tmp_path).model, ids(2, 20)) < 1e-4


def test_a_document_ends_with_the_tokenizers_own_token_where_it_is_not_ours(tokenizer_folder, tmp_path) -> None:
    other = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="a"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert pretrained.end_of_text(other, tmp_path) == 0
    assert pretrained.end_of_text(pretrained.read_tokenizer(tokenizer_folder), tokenizer_folder) == 0
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="nor an eos_token"):
        pretrained.end_of_text(other, tmp_path)


def test_the_folder_carries_a_tokenizer_that_transformers_loads(shape, tokenizer_folder, tmp_path) -> None:
    pretrained.save(tmp_path, random_model(shape), shape, tokenizer_folder, "lm")
    text = "The with statement wraps a block."
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == pretrained.read_tokenizer(tmp_path).encode(text).ids
    assert theirs.eos_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("opt", {"do_layer_norm_before": False}, "as opt-350m has them"),
        ("opt", {"word_embed_proj_dim": 32}, "as opt-350m has them"),
        ("llama", {"attention_bias": True}, "attention_bias without mlp_bias"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "type yarn"),
        ("llama", {"rope_parameters": {**LLAMA3, "low_freq_factor": 2.0}}, "low_freq_factor 2.0"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act gelu"),
        ("llama", {"num_hidden_layers": "two"}, "layers"),
        ("mixtral", {"num_experts_per_tok": 1}, "num_experts_per_tok 1"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("gpt2", {"activation_function": "silu"}, "activation_function silu"),
        ("neox", {"attention_bias": False}, "attention_bias False"),
        ("neox", {"architectures": ["BloomForCausalLM"]}, "BloomForCausalLM in config.json; only LlamaForCausalLM"),
    ],
)
def test_an_option_that_is_not_there_is_refused_in_one_line(name: str, changed: dict, message: str, tmp_path) -> None:
    config = THEIRS[name]()
    raw = {**config.to_dict(), "architectures": [{v: k for k, v in CLASSES.items()}[name]], **changed}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=message) as fault:
        pretrained.read_config(tmp_path)
    assert "\n" not in str(fault.value)


CLASSES = {
    "OPTForCausalLM": "opt", "LlamaForCausalLM": "llama", "MixtralForCausalLM": "mixtral", "GPT2LMHeadModel": "gpt2",
    "GPTNeoXForCausalLM": "neox",
}  # fmt: skip


def rewrite(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with safe_open(folder / pretrained.WEIGHTS, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(weights)
        save_file(weights, folder / pretrained.WEIGHTS)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "without a tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json: no readable tokenizer"),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not readable"),
        (lambda f: (f / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}'), "is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 20), "model.safetensors"),
        (rewrite(lambda w: w.pop("model.norm.weight")), "model.norm.weight is missing"),
        (
            rewrite(lambda w: w.update({"model.layers.2.mlp.bias": torch.ones(2)})),
            "says nothing of the weight model.layers.2.mlp.bias",
        ),
        (rewrite(lambda w: w.update({"model.norm.weight": torch.ones(2)})), "final_layernorm.weight is of shape"),
        (rewrite(lambda w: w.update({"model.layers.0.self_attn.k_proj.weight": torch.ones(3, 2)})), "another shape"),
        (lambda f: shutil.rmtree(f), "no such file"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_in_one_line(spoil, message, shape, tokenizer_folder, tmp_path) -> None:
    folder = tmp_path / "model"
    pretrained.save(folder, random_model(shape), shape, tokenizer_folder, "lm")
    spoil(folder)
    with pytest.raises(UserError, match=message) as fault:
        pretrained.load(folder)
    assert "\n" not in str(fault.value)


def test_a_vocabulary_may_be_padded_beyond_the_tokenizers_but_not_the_reverse(tokenizer_folder, tmp_path) -> None:
    padded, small = (ModelConfig(**{**LLAMA, "vocab": n}) for n in (640, 500))
    pretrained.save(tmp_path / "padded", random_model(padded), padded, tokenizer_folder, "lm")
    assert pretrained.load(tmp_path / "padded").config.vocab == 640
    with pytest.raises(UserError, match="512 ids, but the model has 500"):
        pretrained.save(tmp_path / "small", random_model(small), small, tokenizer_folder, "lm")
