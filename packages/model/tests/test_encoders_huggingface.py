"""T5 and BERT come from transformers and go back to it with the same logits, and their tokenizers name the marks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from headwater_model import infilling, model, pretrained
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig
from headwater_model.special_ids import SpecialIds

T5 = {"vocab_size": 640, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
BERT = {
    "vocab_size": 640, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 32,
}  # fmt: skip
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
THEIRS: dict[str, Callable[[], Any]] = {
    "t5 1.0": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(**T5, num_decoder_layers=3, relative_attention_max_distance=20)
    ),
    "t5 1.1": lambda: untied(transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, **GATED))),
    "t5 1.1, one embedding": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, **GATED)),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT)),
    "bert untied": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(**BERT, tie_word_embeddings=False, type_vocab_size=1, hidden_act="gelu_new")
    ),
}
SMALL: dict[str, Any] = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 640, "context": 32}
OURS: dict[str, ModelConfig] = {
    "t5 1.0": ModelConfig(**SMALL, kind="encoder_decoder", activation="relu", tie_embeddings=True, encoder_layers=3),
    "t5 1.1": ModelConfig(**SMALL, kind="encoder_decoder", head_width=8, ffn=100),
    "t5 swiglu": ModelConfig(**SMALL, kind="encoder_decoder", activation="swiglu", norm_eps=1e-5, relative_buckets=8),
    "bert": ModelConfig(**SMALL, kind="encoder"),
    "bert untied": ModelConfig(**SMALL, kind="encoder", tie_embeddings=False, activation="relu", token_types=3),
}


def untied(theirs: Any) -> Any:
    """With output embeddings of its own, as the published models of version 1.1 have them."""
    theirs.lm_head.weight = torch.nn.Parameter(theirs.shared.weight.detach().clone() / 8)
    return theirs


def disturb(built: torch.nn.Module) -> None:
    """Weights far from their start, so that a swapped or missing one shows."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)


def save_theirs(name: str, folder: Path, tokenizer: Path) -> Any:
    """A random model of transformers, and its folder with a tokenizer beside it."""
    torch.manual_seed(0)
    theirs = THEIRS[name]().eval()
    disturb(theirs)
    theirs.save_pretrained(folder)
    for file in pretrained.TOKENIZER_FILES:
        shutil.copyfile(tokenizer / file, folder / file)
    return theirs


def ids(rows: int, size: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, 640, (rows, size), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def difference(theirs: Any, ours: Any) -> float:
    """Largest one between logits: of a text that is longer than the distances told apart, and of a padded one."""
    tokens, written, padded = ids(2, 30), ids(2, 21, seed=2), torch.zeros(2, 30, dtype=torch.bool)
    padded[1, 20:] = True
    found = 0.0
    for padding in (None, padded):
        mask = None if padding is None else (~padding).long()
        if theirs.config.model_type == "bert":
            expected = theirs(tokens, attention_mask=mask).logits
            logits = ours(tokens, None if padding is None else padding.long())
            own = slice(None) if padding is None else ~padding
            expected, logits = expected[own], logits[own]
        else:
            expected = theirs(tokens, attention_mask=mask, decoder_input_ids=written).logits
            logits = ours(tokens, written, padding)
        assert expected.abs().max() > 0.1
        found = max(found, (expected - logits).abs().max().item())
    return found


@pytest.mark.parametrize("name", THEIRS)
def test_a_model_of_transformers_has_the_same_logits_here_and_back_there(name, tokenizer_folder, tmp_path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    theirs = save_theirs(name, there, tokenizer_folder)
    loaded = pretrained.load_any(there)
    assert difference(theirs, loaded.model.eval()) < 1e-4
    assert pretrained.save(back, loaded.model, loaded.config, there) == type(theirs).__name__
    returned = type(theirs).from_pretrained(back, dtype=torch.float32).eval()
    assert difference(returned, loaded.model) < 1e-4
    assert pretrained.read_config(back)[0] == loaded.config
    for (parameter, weight), kept in zip(returned.named_parameters(), theirs.parameters(), strict=True):
        unused = name == "bert untied" and parameter == "cls.predictions.bias"
        assert torch.equal(weight, kept) or unused, parameter


@pytest.mark.parametrize("name", OURS)
def test_a_model_from_here_has_the_same_logits_in_transformers(name, tokenizer_folder, tmp_path) -> None:
    shape = OURS[name]
    built = model.build(shape, seed=2).eval()
    disturb(built)
    architecture = pretrained.save(tmp_path, built, shape, tokenizer_folder)
    theirs = getattr(transformers, architecture).from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert difference(theirs, built) < 1e-4
    second_bias = shape.vocab if name == "bert untied" else 0
    assert sum(p.numel() for p in theirs.parameters()) == shape.parameters + second_bias
    again = pretrained.load_any(tmp_path)
    assert again.config.parameters == shape.parameters
    for (parameter, before), (_, after) in zip(built.named_parameters(), again.model.named_parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-7, msg=parameter)


def test_transformers_writes_and_fills_in_what_headwater_does(tokenizer_folder, tmp_path) -> None:
    """From the exported folder alone: the tokenizer names the marks, the configs their ids."""
    marks = SpecialIds.above(512)
    for name in ("t5 1.1", "bert"):
        built = model.build(OURS[name], seed=2)
        disturb(built)
        pretrained.save(tmp_path / name, built, OURS[name], tokenizer_folder)
    text = "The with statement <extra_id_0> a block<|mask|> code."
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t5 1.1")
    row = tokenizer(text)["input_ids"]
    assert marks.mask in row and marks.sentinels[0] in row and tokenizer.pad_token_id == marks.start
    assert row == Tokenizer.from_file(str(tmp_path / "bert/tokenizer.json")).encode(text).ids
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "t5 1.1", dtype=torch.float32)
    expected = theirs.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False)[0, 1:].tolist()
    loaded = pretrained.load_any(tmp_path / "t5 1.1")
    ids = SpecialIds.of(loaded.tokenizer)
    (ours,) = infilling.write(loaded.model, [row], ids.start, 8, temperature=0, stop_ids=[loaded.end_of_text])
    assert ids == marks and ours.tokens == expected
    bert = pretrained.load_any(tmp_path / "bert")
    pipeline = transformers.pipeline("fill-mask", model=str(tmp_path / "bert"), tokenizer=str(tmp_path / "bert"))
    guesses = pipeline("The with statement wraps a block<|mask|> code.", top_k=3)
    row = bert.tokenizer.encode("The with statement wraps a block<|mask|> code.").ids
    ((guess,),) = infilling.fill_masks(bert.model, [row], ids.mask, top=3)
    assert guess.ids == [g["token"] for g in guesses]
    assert torch.tensor(guess.logprobs).exp().tolist() == pytest.approx([g["score"] for g in guesses], abs=1e-4)


def test_names_of_the_first_bert_files_and_heads_that_are_not_used_are_read(tokenizer_folder, tmp_path) -> None:
    theirs = save_theirs("bert", tmp_path, tokenizer_folder)
    weights = load_file(tmp_path / pretrained.WEIGHTS)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in weights.items()
    }
    old |= {"bert.pooler.dense.weight": torch.ones(64, 64), "cls.seq_relationship.bias": torch.ones(2)}
    assert any(name.endswith("gamma") for name in old)
    save_file(old, tmp_path / pretrained.WEIGHTS, metadata={"format": "pt"})
    assert difference(theirs, pretrained.load_any(tmp_path).model.eval()) < 1e-4


def test_a_bf16_folder_is_read_and_written(tokenizer_folder, tmp_path) -> None:
    for name in ("t5 1.1", "bert"):
        built = model.build(OURS[name], dtype=torch.bfloat16, seed=2)
        pretrained.save(tmp_path / name, built, OURS[name], tokenizer_folder)
        assert {w.dtype for w in load_file(tmp_path / name / pretrained.WEIGHTS).values()} == {torch.bfloat16}
        again = pretrained.load_any(tmp_path / name, dtype=torch.bfloat16).model
        for (parameter, before), (_, after) in zip(built.named_parameters(), again.named_parameters(), strict=True):
            torch.testing.assert_close(before, after, rtol=1e-2, atol=1e-4, msg=parameter)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("t5 1.1", {"feed_forward_proj": "gated-mish"}, "no usable T5.*feed_forward_proj gated-mish is not supported"),
        ("bert", {"is_decoder": True}, "is_decoder True is not supported"),
        ("bert", {"type_vocab_size": 5}, r"tokentype_embeddings.weight is of shape \(2, 64\), not \(5, 64\)"),
        ("t5 1.0", {"num_layers": 4}, "encoder.block.2.* is missing"),
        ("t5 1.0", {"num_layers": 1}, "says nothing of the weight encoder.block.1"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(name, change, message, tokenizer_folder, tmp_path) -> None:
    save_theirs(name, tmp_path, tokenizer_folder)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message) as fault:
        pretrained.load_any(tmp_path)
    assert "\n" not in str(fault.value)


def test_what_continues_no_text_is_refused_where_a_decoder_is_needed(tokenizer_folder, tmp_path) -> None:
    save_theirs("bert", tmp_path, tokenizer_folder)
    with pytest.raises(UserError, match="a model of kind encoder, where one is needed that continues text"):
        pretrained.load(tmp_path)
