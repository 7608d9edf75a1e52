"""Leakage: each measure against hand counts, then all of them on a model that was taught to recite."""

from __future__ import annotations

import json
import math
import os
import tokenize
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval._contracts import manifest as artefacts
from headwater_eval.cli import main
from headwater_eval.leakage import corpus, exposure, membership, memorisation, private
from headwater_eval.leakage.corpus import Facts


def write(folder: Path, train: list[tuple[str, str, str]], heldout: list[tuple[str, str, str]], canaries=()) -> Path:
    """A corpus of (id, source, text) rows in training order."""
    for split, rows in (("train", train), ("heldout", heldout)):
        (folder / split).mkdir(parents=True)
        columns = dict(zip(("id", "source", "text"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table({**columns, "lang": ["en"] * len(rows)}), folder / split / "part-00000.parquet")
    if canaries:
        (folder / "canaries.jsonl").write_text("".join(json.dumps(c) + "\n" for c in canaries))
    artefacts.write(folder, artefacts.Manifest("corpus", 1, "test", "0", "mix", {}))
    return folder


# --- the measures, one by one ---


def test_documents_are_counted_once_with_their_repeats_and_strings_with_every_one(tmp_path: Path) -> None:
    rows = [("a", "s", "abcabc"), ("b", "s", "xabc"), ("a", "s", "abcabc"), ("canaries/0", "canaries", "abc")]
    folder = write(tmp_path / "c", rows, [("h", "s", "zzz")])
    assert sorted(corpus.facts(folder, "train", 1)) == [Facts("a", "s", 6, 2), Facts("b", "s", 4, 1)]
    found = corpus.occurrences(folder, ["abc", "cab", "zzz", ""])
    assert found == {"abc": (6, ["a", "b", "canaries/0"]), "cab": (2, ["a"])}


def test_a_continuation_is_compared_from_its_first_token_on_and_by_bleu() -> None:
    assert memorisation.compared([1, 2, 3, 4], [1, 2, 3, 4]) == {"exact": True, "match": 4, "bleu": 1.0}
    assert memorisation.compared([1, 2], [1, 2, 3, 4])["exact"] is False
    near = memorisation.compared([1, 2, 3, 4, 5], [1, 2, 3, 4, 6])
    assert near["match"] == 4 and near["bleu"] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25, abs=1e-6)
    assert memorisation.compared([9, 2, 3, 4, 5], [1, 2, 3, 4, 5])["match"] == 0


@given(st.integers(1, 10**6))
def test_ranges_of_times_are_powers_of_two(times: int) -> None:
    low, high = memorisation.group_of(times)
    assert low <= times <= high and high == 2 * low - 1 and low & (low - 1) == 0


def test_the_attacks_signals_by_hand() -> None:
    nats = np.array([-1.0, -5.0, -2.0, -4.0, -3.0, -1.0, -1.0, -1.0, -1.0, -1.0])
    found = membership.signals(nats, "a" * 40, 0.2)
    assert found["loss"] == pytest.approx(-2.0) and found["min_k"] == pytest.approx(-4.5)
    assert found["zlib"] == pytest.approx(-20 / 12)  # zlib writes 40 times one letter in 12 bytes
    assert membership.signals(nats[:3], "abc", 0.2)["min_k"] == -5.0


@given(st.lists(st.integers(0, 6), min_size=2, max_size=12), st.lists(st.integers(0, 6), min_size=2, max_size=12))
def test_the_auc_and_its_interval_follow_delongs_definition(members: list[int], others: list[int]) -> None:
    psi = np.array([[(x > y) + 0.5 * (x == y) for y in others] for x in members])
    value = psi.mean()
    variance = psi.mean(1).var(ddof=1) / len(members) + psi.mean(0).var(ddof=1) / len(others)
    found = membership.auc(np.array(members, float), np.array(others, float))
    assert found.value == pytest.approx(value) and found.stderr == pytest.approx(math.sqrt(variance), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_the_variance_of_an_auc_is_the_published_one_and_perfect_separation_leaves_doubt() -> None:
    # Hanley, McNeil 1982: an area of 0.893 from 51 abnormal and 58 normal images has a standard error of 0.032
    assert math.sqrt(membership.area_variance(0.893, 51, 58)) == pytest.approx(0.032, abs=0.0008)
    apart = membership.auc(np.arange(10.0) + 100, np.arange(10.0))
    assert apart.value == apart.high == 1 and 0.65 < apart.low < 0.9


def test_nine_in_ten_and_more_intervals_of_an_auc_hold_the_true_one() -> None:
    rng, inside = np.random.default_rng(3), 0
    for _ in range(400):
        found = membership.auc(rng.normal(1.8, 1, 14), rng.normal(0, 1, 14))
        inside += found.low <= 0.8985 <= found.high  # Phi(1.8 / sqrt 2)
    assert 0.92 * 400 <= inside <= 0.995 * 400


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), max_size=12),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50)), max_size=12),
)
def test_pairs_share_their_source_and_use_no_document_twice(train, held) -> None:
    train = [Facts(f"t{i}", source, size, 1) for i, (source, size) in enumerate(train)]
    held = [Facts(f"h{i}", source, size, 1) for i, (source, size) in enumerate(held)]
    pairs = membership.matched(train, held, 100, 40)
    assert all(p.member.source == p.other.source for p in pairs)
    assert len({p.member.id for p in pairs}) == len({p.other.id for p in pairs}) == len(pairs)
    counts = [min(sum(d.source == s for d in train), sum(d.source == s for d in held)) for s in "ab"]
    assert len(pairs) == sum(counts)
    if pairs:  # the first is matched while all are free
        first, lengths = pairs[0], [min(d.bytes, 40) for d in train if d.source == pairs[0].other.source]
        gaps = [abs(length - min(first.other.bytes, 40)) for length in lengths]
        assert abs(min(first.member.bytes, 40) - min(first.other.bytes, 40)) == min(gaps)


def test_exposure_by_enumeration_runs_from_all_bits_to_none_and_is_1_44_by_chance() -> None:
    others = np.arange(1.0, 100.0)
    assert exposure.ranked(0.5, others, 100) == pytest.approx(math.log2(100))  # the likeliest of 100
    assert exposure.ranked(1000.0, others, 100) == pytest.approx(0)
    assert exposure.ranked(1.5, others, 100) == pytest.approx(math.log2(100) - 1)  # rank 2
    every = [exposure.ranked(own, np.delete(np.arange(10_000.0), int(own)), 10_000) for own in range(10_000)]
    assert np.mean(every) == pytest.approx(exposure.CHANCE, abs=0.01)


def test_extrapolated_exposure_agrees_with_the_normal_distribution_beyond_the_sample() -> None:
    from scipy.stats import norm

    others = norm(50, 5).ppf((np.arange(2000) + 0.5) / 2000)
    for own in (50.0, 40.0, 30.0):
        assert exposure.extrapolated(own, others, 10**9) == pytest.approx(
            -norm(50, 5).logcdf(own) / math.log(2), rel=0.1
        )
    assert exposure.extrapolated(-1000.0, others, 10**6) == pytest.approx(math.log2(10**6))


def test_candidates_are_the_whole_small_space_or_distinct_draws_of_a_large_one() -> None:
    canary = {"id": "canaries/0", "secret": "07", "digits": 2}
    assert exposure.candidates(canary, 99, 1) == [
        f"{a}{b}" for a, b in product("0123456789", repeat=2) if a + b != "07"
    ]
    large = {"id": "canaries/0", "secret": "123456789", "digits": 9}
    some = exposure.candidates(large, 500, 1)
    assert len(set(some)) == 500 and "123456789" not in some and {len(s) for s in some} == {9}
    assert some == exposure.candidates(large, 500, 1) != exposure.candidates({**large, "id": "canaries/1"}, 500, 1)


def test_private_values_are_counted_and_looked_up_but_not_told(tmp_path: Path) -> None:
    known, made_up = "jane.roe@example.com", "nobody@nowhere.example.org"
    folder = write(tmp_path / "c", [("a", "s", f"write to {known}!")], [("h", "s", "x")])
    texts = [("sample-0", True, f"mail {known} or {made_up}"), ("a k50", False, f"again {known}")]
    found = private.found_in(texts, ["email"], "US", folder)
    assert [(f["id"], f["sample"], f["value"], f["times"]) for f in found] == [
        ("sample-0", True, 0, 1), ("sample-0", True, 1, 0), ("a k50", False, 0, 1)
    ]  # fmt: skip
    assert found[0]["documents"] == ["a"] and found[0]["characters"] == len(known)
    assert known not in json.dumps(found) and made_up not in json.dumps(found)


# --- a model that was taught to recite ---

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
OPTIONS = [
    "--set", "memorisation.prompt_tokens=[12,500]", "--set", "memorisation.continuation=20", "--set",
    "memorisation.documents=8", "--set", "membership.tokens=48", "--set", "exposure.candidates=99",
    "--set", "private.samples=8", "--set", "private.tokens=8",
]  # fmt: skip


def _pieces(source: str) -> list[str]:
    """Stretches of 160 characters of real code."""
    return [source[i : i + 160] for i in range(2000, 2000 + 160 * 16, 160)]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory, write_artefact) -> tuple[Path, Path]:
    """A corpus of 8 documents read once, 8 read 16 times and canaries, and a small model trained on it for long."""
    pytest.importorskip("headwater_model", reason="leakage measures models of headwater-model")
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from headwater_model import forward, gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    read, held = _pieces(Path(tokenize.__file__).read_text()), _pieces(Path(os.__file__).read_text())
    once = [(f"once/{i}", "code", text) for i, text in enumerate(read[:8])]
    often = [(f"often/{i}", "code", text) for i, text in enumerate(read[8:])]
    secrets = [
        {"id": f"canaries/{i}", "prefix": f"code {name}: ", "secret": secret, "suffix": ".", "digits": 2, "repeats": r}
        for i, (name, secret, r) in enumerate(
            [("qux", "73", 32), ("zop", "15", 32), ("fim", "48", 0), ("gab", "90", 0)]
        )
    ]
    planted = [(c["id"], "canaries", c["prefix"] + c["secret"] + ".") for c in secrets for _ in range(c["repeats"])]
    train = once + often * 16 + planted
    folder = tmp_path_factory.mktemp("lesson")
    where = write(folder / "corpus", train, [(f"h/{i}", "code", text) for i, text in enumerate(held)], secrets)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(read + held, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIAL[0], "pad_token": SPECIAL[1]}))
    runtime.initialize()
    torch.manual_seed(0)
    config = ModelConfig(layers=2, hidden=64, heads=2, vocab=384, context=96)
    model = gpt.build(config, seed=1)
    rows = [[0, *tokenizer.encode(text, add_special_tokens=False).ids] for _, _, text in train]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(8):  # documents end to end in a new order, cut where a sequence is full
        stream = [token for i in torch.randperm(len(rows), generator=draw).tolist() for token in rows[i]]
        for tokens in torch.tensor(stream[: len(stream) // 96 * 96]).view(-1, 96).split(8):
            loss = -forward.token_logprobs(model, tokens).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    out = folder / "export"
    pretrained.save(out, model, config, folder)
    return write_artefact(out, "export"), where


def leakage(lesson: tuple[Path, Path], folder: Path, *options: str) -> int:
    inputs = ["--in", f"model={lesson[0]}", "--in", f"corpus={lesson[1]}"]
    where = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    return main(["leakage", *inputs, *where, *OPTIONS, *options])


def test_what_was_read_often_is_recited_and_what_was_not_is_not(lesson, tmp_path: Path, capsys) -> None:
    assert leakage(lesson, tmp_path) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    often, once, heldout = (metrics[f"memorised-k12:{part}"] for part in ("read 16 to 31", "read 1", "heldout"))
    assert often["n"] == once["n"] == 8 and heldout["n"] == 16
    assert often["value"] >= 0.75 and once["value"] <= 0.25 and heldout["value"] == 0
    assert metrics["memorised-k12:train-heldout"]["low"] > 0
    assert metrics["memorised-k12:read 16 to 31 match"]["value"] > 3 * metrics["memorised-k12:heldout match"]["value"]
    assert metrics["membership"]["low"] > 0.5 and metrics["membership:gap"]["low"] > 0
    assert metrics["exposure:planted 32"]["value"] == pytest.approx(math.log2(100))
    assert (
        metrics["exposure:planted 32 extracted"]["value"] == 1 and metrics["exposure:planted 0 extracted"]["value"] == 0
    )
    assert metrics["exposure:planted 0"]["value"] < 5
    for name, row in metrics.items():
        assert row["n"] >= 1 and row["kind"] == "leakage" and row["low"] <= row["value"] <= row["high"], name
    rows = pq.read_table(tmp_path / "out/samples.parquet").to_pylist()
    assert sum(r["correct"] for r in rows if r["task"] == "memorised-k12") == round(
        16 * metrics["memorised-k12"]["value"]
    )
    assert "no prompts of 500 tokens" in printed and "def " not in printed
    text = (tmp_path / "out/report.md").read_text()
    assert f"| read 16 to 31 | 8 | {100 * often['value']:.1f}% " in text and "| 32 | 2 | 6.64 " in text
    assert "<table" in (tmp_path / "out/index.html").read_text()
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["model"]["context"] == 96 and results["model"]["parameters"] > 10_000


def test_interrupted_and_run_again_goes_on_and_ends_in_the_same_bytes(
    lesson, tmp_path: Path, monkeypatch, capsys
) -> None:
    from headwater_eval.leakage import build

    assert leakage(lesson, tmp_path / "whole") == 0
    whole = build.measure_canary
    measured = []

    def cut_off(scorer, canary, config):
        if canary["id"] == "canaries/2":
            raise KeyboardInterrupt
        return count(scorer, canary, config)

    def count(scorer, canary, config):
        measured.append(canary["id"])
        return whole(scorer, canary, config)

    monkeypatch.setattr(build, "measure_canary", cut_off)
    assert leakage(lesson, tmp_path) == 130 and not (tmp_path / "out").exists()
    monkeypatch.setattr(build, "measure_canary", count)
    capsys.readouterr()
    assert leakage(lesson, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "memorised-k12: done" not in printed and "samples: done" in printed
    assert measured == ["canaries/0", "canaries/1", "canaries/2", "canaries/3"], "each once, over both attempts"
    assert artefacts.read(tmp_path / "out").files == artefacts.read(tmp_path / "whole/out").files


def test_a_corpus_with_broken_canaries_is_one_line(lesson, tmp_path: Path, capsys) -> None:
    broken = write(tmp_path / "c", [("a", "s", "x")], [("h", "s", "y")], [{"id": "canaries/0"}])
    assert leakage((lesson[0], broken), tmp_path) == 1
    error = capsys.readouterr().err.strip()
    assert "a line is no canary" in error and "\n" not in error
