"""A model from elsewhere becomes a base: its words keep their logits, and the chat format's tokens are there."""

import json

import pytest
import torch

from headwater_align._contracts import manifest

WORDS = ["a", "b", "c", "d", "</s>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def make_foreign(tmp_path_factory):
    """A function that writes a folder as transformers does: no manifest, another one's chat template."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    def make(family: str, rows: int, tied: bool):
        folder = tmp_path_factory.mktemp("foreign")
        torch.manual_seed(5)
        shape = getattr(transformers, f"{family}Config")(
            vocab_size=rows, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=None,
            eos_token_id=4,
        )  # fmt: skip
        getattr(transformers, f"{family}ForCausalLM")(shape).float().save_pretrained(folder)
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(WORDS[4:])
        tokenizer.save(str(folder / "tokenizer.json"))
        options = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": "{{ messages }}"}
        (folder / "tokenizer_config.json").write_text(json.dumps(options))
        return folder

    return make


@pytest.fixture(scope="module")
def foreign(make_foreign):
    """A Llama of six ids, as many as its tokenizer has."""
    return make_foreign("Llama", 6, tied=False)


def adopt(run_stage, folder, out, *options, **given):
    return run_stage("adopt", {}, out, "--set", f"folder={folder}", "--set", "dtype=float32", *options, **given)


@pytest.fixture(scope="module")
def run_stage():
    """A function that runs a stage by the command line."""
    from headwater_align.cli import main

    def run(stage, inputs, out, *options, code=0):
        named = [part for name, path in inputs.items() for part in ("--in", f"{name}={path}")]
        assert main([stage, *named, "--out", str(out), "--work", f"{out}.work", *options]) == code
        return out

    return run


@pytest.mark.parametrize(("family", "rows", "tied", "wanted"), [("Llama", 6, False, 128), ("Qwen2", 16, True, 16)])
def test_its_own_words_keep_their_logits_and_new_tokens_stand_at_the_mean(
    family, rows, tied, wanted, run_stage, make_foreign, tmp_path
):
    transformers = pytest.importorskip("transformers")
    foreign = make_foreign(family, rows, tied)
    out = adopt(run_stage, foreign, tmp_path / "base")
    before, after = (transformers.AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (foreign, out))
    ids = torch.tensor([[0, 1, 2, 3, 1]])
    with torch.no_grad():
        old, new = before(ids).logits[..., :6], after(ids).logits
    assert new.size(-1) == wanted and torch.allclose(new[..., :6], old, atol=1e-6)
    assert torch.allclose(new[..., 6:], old.mean(-1, keepdim=True).expand_as(new[..., 6:]), atol=1e-5)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tokens_added"] == ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    assert (metrics["vocab_before"], metrics["vocab"]) == (rows, wanted)
    assert "chat_template" not in json.loads((out / "tokenizer_config.json").read_text())
    assert str(foreign) not in (out / "manifest.json").read_text() + (out / "metrics.json").read_text()
    manifest.verify(out, ("export",))


def test_an_adopted_model_is_fine_tuned_like_any_other_and_adopted_again_unchanged(
    run_stage, foreign, make_sources, jsonl, tmp_path
):
    base = adopt(run_stage, foreign, tmp_path / "base")
    rows = [{"prompt": f"{'a ' * n}b", "completion": "c d"} for n in range(24)]
    sources = make_sources(tmp_path / "sources", {"rows": ("instructions", {"rows.jsonl": jsonl(rows)})})
    some = run_stage("instructions", {"sources": sources}, tmp_path / "some", "--set", "heldout_fraction=0.5")
    told = ("--set", "optimizer.lr=0.01", "--set", "epochs=4", "--set", "batch_size=4")
    sft = run_stage("sft", {"model": base, "instructions": some}, tmp_path / "sft", *told)
    metrics = json.loads((sft / "metrics.json").read_text())
    assert metrics["heldout_loss"] < 0.5 * metrics["heldout_loss_before"]
    again = adopt(run_stage, base, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert json.loads((again / "metrics.json").read_text())["tokens_added"] == []


def test_what_is_no_language_model_is_refused_in_one_line(run_stage, tmp_path, capsys):
    adopt(run_stage, tmp_path / "nowhere", tmp_path / "base", code=1)
    said = capsys.readouterr().err
    assert "nowhere" in said and said.count("\n") == 1
