"""What is exported is the model: transformers gives the same logits, and what is no model is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from headwater_model import forward, gpt, pretrained
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig

SHAPES = {
    "grouped queries": ModelConfig(layers=2, hidden=64, heads=4, kv_heads=2, vocab=512, context=32),
    "tied embeddings": ModelConfig(layers=2, hidden=64, heads=4, vocab=512, context=32, tie_embeddings=True),
    "odd sizes": ModelConfig(layers=3, hidden=48, heads=3, kv_heads=1, ffn=100, vocab=640, context=24, rope_base=5e5),
}


def random_model(shape: ModelConfig, head: pretrained.Head = "lm") -> gpt.GPT:
    """Weights far from their start, so that a swapped or missing one shows."""
    model = gpt.build(shape, head=head, seed=2)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_gives_the_same_logits(name: str, tokenizer_folder: Path, tmp_path: Path) -> None:
    shape = SHAPES[name]
    model = random_model(shape)
    pretrained.save(tmp_path, model, shape, tokenizer_folder, "lm")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(shape.vocab, (3, shape.context), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, ours = theirs(tokens).logits, forward.logits(model, tokens)
    assert ours.std() > 0.1
    assert (ours - expected).abs().max() < 1e-4
    assert sum(p.numel() for p in theirs.parameters()) == shape.parameters


def test_transformers_gives_the_same_values_of_a_scalar_head(shape, tokenizer_folder, tmp_path) -> None:
    model = random_model(shape, "scalar")
    pretrained.save(tmp_path, model, shape, tokenizer_folder, "scalar")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(10, shape.vocab, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert abs(theirs(tokens).logits.item() - forward.values(model, tokens)[0, -1].item()) < 1e-4


def test_read_back_it_is_the_same_model(shape, tokenizer_folder, tmp_path) -> None:
    model = random_model(shape)
    pretrained.save(tmp_path, model, shape, tokenizer_folder, "lm")
    loaded = pretrained.load(tmp_path)
    assert loaded.config == shape.model_copy(update={"kv_heads": shape.key_value_heads, "ffn": shape.ffn_width})
    for (name, before), (_, after) in zip(model.named_parameters(), loaded.model.named_parameters(), strict=True):
        assert torch.equal(before, after), name


def test_the_folder_carries_a_tokenizer_that_transformers_loads(shape, tokenizer_folder, tmp_path) -> None:
    pretrained.save(tmp_path, random_model(shape), shape, tokenizer_folder, "lm")
    text = "The with statement wraps a block."
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == pretrained.read_tokenizer(tmp_path).encode(text).ids
    assert theirs.eos_token == "<|endoftext|>"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "without a tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json: no readable tokenizer"),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}'), "only .* can be read"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 20), "model.safetensors"),
        (lambda f: shutil.rmtree(f), "no such file"),
    ],
    ids=["no tokenizer", "broken tokenizer", "no config", "other architecture", "no weights", "broken weights", "none"],
)
def test_a_folder_that_is_no_model_is_refused_in_one_line(spoil, message, shape, tokenizer_folder, tmp_path) -> None:
    folder = tmp_path / "model"
    pretrained.save(folder, random_model(shape), shape, tokenizer_folder, "lm")
    spoil(folder)
    with pytest.raises(UserError, match=message) as fault:
        pretrained.load(folder)
    assert "\n" not in str(fault.value)
