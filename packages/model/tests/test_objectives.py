"""What an objective takes out of a window and asks for: nothing lost, the right share, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headwater_model import objectives, plan
from headwater_model._contracts.errors import UserError
from headwater_model._contracts.sequences import IGNORED
from headwater_model.config import ModelConfig, PlanConfig
from headwater_model.facts import Facts
from headwater_model.heldout import HeldOut
from headwater_model.objectives import MaskedLM, PrefixLM, SpanCorruption
from headwater_model.special_ids import SpecialIds
from headwater_model.tokens import Rows, TrainingData
from headwater_model.training_config import DataConfig, ObjectiveConfig

VOCABULARY, END = 500, 0
IDS = SpecialIds.above(VOCABULARY)
seeds, places = st.integers(0, 2**31), st.integers(0, 2**40)


def of(tokens: torch.Tensor) -> Rows:
    """Each token of the source that its own number gives: so a label's source tells which token it came from."""
    return Rows(tokens, torch.zeros_like(tokens), tokens + 7)


def rows(count: int, window: int, seed: int) -> Rows:
    """Random ids."""
    return of(torch.from_numpy(np.random.default_rng(seed).integers(0, VOCABULARY, (count, window))))


def every(context: int, seed: int) -> list[objectives.Objective]:
    return [
        PrefixLM(context, seed),
        SpanCorruption(context, seed, IDS, END),
        MaskedLM(context, seed, IDS, END, VOCABULARY),
    ]


def put_back(shown: np.ndarray, target: np.ndarray) -> list[int]:
    """A row from its input and its target: each sentinel replaced by what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target.tolist():
        if token in IDS.sentinels:
            span = spans.setdefault(token, [])
        else:
            span.append(token)
    return [token for seen in shown.tolist() for token in spans.get(seen, [seen])]


@given(st.integers(2, 200), st.floats(0, 1), seeds)
@settings(max_examples=100, deadline=None)
def test_what_is_taken_out_and_what_stays_are_the_window(size: int, rate: float, seed: int) -> None:
    """Of any mask, also one that begins with a missing stretch or has all or nothing missing."""
    missing = np.random.default_rng(seed).random(size) < rate
    row = rows(1, size, seed).tokens[0].numpy()
    shown, target, places = objectives.corrupt(row, missing, np.array(IDS.sentinels))
    stretches = int((missing & ~np.concatenate([[False], missing[:-1]])).sum())
    assert put_back(shown, target) == row.tolist()
    assert all(row[place] == token for place, token in zip(places, target, strict=True) if token < VOCABULARY)
    assert [t for t in shown if t in IDS.sentinels] == list(IDS.sentinels[:stretches])
    assert len(shown) == (~missing).sum() + stretches and len(target) == missing.sum() + stretches


@given(st.integers(4, 600), st.floats(0.05, 0.9), st.floats(1, 10), seeds)
@settings(max_examples=60, deadline=None)
def test_spans_have_the_right_number_length_and_share_and_the_input_is_full(context, rate, mean_span, seed) -> None:
    window = objectives.window_of(context, rate, mean_span)
    shown, target = objectives.lengths(window, rate, mean_span)
    noise, count = objectives.spans(window, rate, mean_span)
    missing = objectives.span_mask(window, rate, mean_span, np.random.default_rng(seed))
    assert shown <= context < objectives.lengths(window + 1, rate, mean_span)[0]
    assert missing.sum() == noise and not missing[0] and missing[-1]
    assert (np.diff(missing.astype(int)) == 1).sum() == count
    assert shown == window - noise + count + 1 and target == noise + count + 1


def test_the_lengths_are_t5s() -> None:
    """The figures of T5's own pre-training: 512 positions hold 568 tokens, 114 are targets."""
    objective = SpanCorruption(512, 0, IDS, END)
    assert (objective.window, objective.target) == (568, 114)


def test_every_cut_is_as_likely() -> None:
    """Two spans of three tokens out of 8: 2 ways to cut 3 in two, 4 to cut the 5 that stay."""
    draws = [objectives.span_mask(8, 3 / 8, 1.5, objectives.generator(1, i)).tobytes() for i in range(4000)]
    _, counts = np.unique(draws, return_counts=True)
    assert len(counts) == 8 and abs(counts - 500).max() < 5 * 500**0.5


@given(st.integers(10, 120), seeds, places)
@settings(max_examples=60, deadline=None)
def test_a_sample_is_a_function_of_window_seed_and_place(context: int, seed: int, first: int) -> None:
    """So ranks, micro-batches and restarts share the samples of one rank."""
    for objective in every(context, seed):
        window = rows(5, objective.window, seed)
        whole = objective(window, first)
        parts = [objective(of(window.tokens[:2]), first), objective(of(window.tokens[2:]), first + 2)]
        for name, value in whole.items():
            assert torch.equal(value, torch.cat([part[name] for part in parts])), name
        assert torch.equal(window.tokens, rows(5, objective.window, seed).tokens)  # what came in is left alone


def test_another_epoch_or_seed_corrupts_the_same_window_anew() -> None:
    for seed, objective in ((s, o) for s in (3, 4) for o in every(50, s)):
        one = rows(1, objective.window, 1)
        samples = objective(of(one.tokens.expand(40, -1)), 0)
        different = {b"".join(value[i].numpy().tobytes() for value in samples.values()) for i in range(40)}
        assert len(different) > 20
        other = type(objective)(**{**vars(objective), "seed": seed + 1})(one, 0)
        assert any(not torch.equal(other[name], samples[name][:1]) for name in other)


@pytest.mark.parametrize("objective", every(60, 5), ids=lambda o: type(o).__name__)
def test_each_label_that_counts_is_text_or_a_mark_and_has_its_tokens_source(objective: objectives.Objective) -> None:
    samples = objective(rows(20, objective.window, 2), 0)
    labels, counted = samples["labels"], samples["loss_mask"].bool()
    assert samples["source"].shape == labels.shape == counted.shape
    text = counted & (labels < VOCABULARY)
    text[:, -1] &= labels[:, -1] != END  # ends a target
    assert text.sum() > 0.1 * labels.numel() and torch.equal(samples["source"][text], labels[text] + 7)


def test_masks_have_berts_shares_and_labels_stand_where_tokens_were_chosen() -> None:
    window = rows(200, 512, 5)
    samples = MaskedLM(512, 7, IDS, END, VOCABULARY)(window, 0)
    text, tokens, labels, asked = window.tokens, samples["tokens"], samples["labels"], samples["loss_mask"].bool()
    assert torch.equal(labels != IGNORED, asked) and torch.equal(labels[asked], text[asked])
    assert torch.equal(tokens[~asked], text[~asked])
    assert not (asked & (text == END)).any()
    assert asked.sum(1).tolist() == [round(0.15 * int((row != END).sum())) for row in text]
    masked, kept = tokens[asked] == IDS.mask, tokens[asked] == text[asked]
    total = int(asked.sum())  # 15,300: two standard deviations are 0.7%
    assert abs(masked.sum() / total - 0.8) < 0.012 and abs(kept.sum() / total - 0.1) < 0.012
    other = tokens[asked][~masked & ~kept]
    assert other.max() < VOCABULARY and len(other.unique()) > 0.9 * VOCABULARY


def test_the_mask_falls_on_every_place_alike() -> None:
    window = of(torch.full((4000, 20), 7))
    places = MaskedLM(20, 1, IDS, END, VOCABULARY)(window, 0)["loss_mask"].sum(0)
    assert abs(places - 600).max() < 5 * 600**0.5  # three of twenty


def test_a_window_of_ends_alone_asks_nothing() -> None:
    window = of(torch.full((2, 20), END))
    samples = MaskedLM(20, 1, IDS, END, VOCABULARY)(window, 0)
    assert torch.equal(samples["tokens"], window.tokens) and not samples["loss_mask"].any()


def test_a_prefix_is_uniform_and_the_loss_begins_with_the_token_after_it() -> None:
    window = rows(4000, 9, 2)
    samples = PrefixLM(8, 1)(window, 0)
    counts = torch.bincount(samples["prefix"], minlength=9)
    assert counts[0] == 0 and abs(counts[1:] - 500).max() < 5 * 500**0.5
    for i, prefix in enumerate(samples["prefix"][:50]):
        counted = samples["labels"][i, samples["loss_mask"][i].bool()]
        assert counted.tolist() == window.tokens[i, prefix:].tolist()


def test_span_corruption_feeds_the_decoder_its_targets_one_late() -> None:
    objective = SpanCorruption(40, 1, IDS, END)
    window = rows(3, objective.window, 4)
    samples = objective(window, 0)
    assert samples["tokens"].shape == (3, 40) and (samples["tokens"][:, -1] == END).all()
    assert (samples["labels"][:, -1] == END).all() and (samples["decoder_tokens"][:, 0] == IDS.start).all()
    assert torch.equal(samples["decoder_tokens"][:, 1:], samples["labels"][:, :-1])
    for i, row in enumerate(window.tokens):
        assert put_back(samples["tokens"][i, :-1].numpy(), samples["labels"][i, :-1].numpy()) == row.tolist()


def test_special_ids_lie_above_the_tokenizers_or_are_the_ones_it_names(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    ids = SpecialIds.of(tokenizer)
    assert ids == SpecialIds.above(size)
    assert {ids.start, ids.mask, *ids.sentinels} == set(range(size, size + SpecialIds.COUNT))
    tokenizer.add_special_tokens(SpecialIds.names())
    assert tokenizer.get_vocab_size() == size + SpecialIds.COUNT and SpecialIds.of(tokenizer) == ids


def test_each_kind_has_its_objective_and_a_vocabulary_without_room_is_refused(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    roomy = tokenizer.get_vocab_size() + SpecialIds.COUNT
    kinds = {"decoder": type(None), "prefix": PrefixLM, "encoder_decoder": SpanCorruption, "encoder": MaskedLM}
    for kind, objective in kinds.items():
        model = ModelConfig(kind=kind, vocab=roomy, context=32)
        assert type(objectives.build(model, ObjectiveConfig(), DataConfig(), 1, tokenizer, END)) is objective
        if kind.startswith("encoder"):
            with pytest.raises(UserError, match=f"ids up to {roomy - 1}, but the model's vocabulary is {roomy - 1}"):
                objectives.build(
                    model.model_copy(update={"vocab": roomy - 1}), ObjectiveConfig(), DataConfig(), 1, tokenizer, END
                )


def test_document_masks_are_refused_for_what_is_no_decoder(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    masked = DataConfig(document_mask=True)
    assert objectives.build(ModelConfig(), ObjectiveConfig(), masked, 1, tokenizer, END) is None
    with pytest.raises(UserError, match="document_mask goes with a model of kind decoder, not encoder"):
        objectives.build(ModelConfig(kind="encoder"), ObjectiveConfig(), masked, 1, tokenizer, END)


def test_a_plans_vocabulary_holds_the_special_ids() -> None:
    facts = Facts(vocabulary=4090, train_tokens=10**9, heldout_tokens=1, heldout_bytes=1)
    found = {}
    for kind in ("decoder", "prefix", "encoder", "encoder_decoder"):
        config = PlanConfig(model={"kind": kind}, budget={"flops": 1e16}, vocab_multiple=64)
        model = ModelConfig(**plan.make(config, facts)["model"])
        assert model.kind == kind
        found[kind] = model.vocab
    assert found == {"decoder": 4096, "prefix": 4096, "encoder": 4224, "encoder_decoder": 4224}


@pytest.mark.parametrize("objective", every(24, 5), ids=lambda o: type(o).__name__)
def test_it_sits_in_training_and_held_out_data(objective, tokens_folder, tokenizer_folder, tmp_path) -> None:
    """Ranks share one rank's samples, a held-out window is always corrupted alike, padding counts nowhere."""
    inputs, context = {"tokens": tokens_folder}, objective.window - 1
    data = TrainingData(inputs, DataConfig(), context, 64, 1, END, tmp_path / "index", objective)
    (whole,) = data.batch(8, 8, 8, 0, 1)
    parts = data.batch(8, 8, 2, 0, 2) + data.batch(8, 8, 2, 1, 2)
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([part[name] for part in parts])), name
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    heldout = HeldOut(tokens_folder, context, tokenizer, END, None, objective=objective)
    once = heldout.batches(4, 0, 1)
    ranks = heldout.batches(4, 0, 2) + heldout.batches(4, 1, 2)
    windows = -(-heldout.tokens // context)
    assert sum(len(batch["tokens"]) for batch in once) >= windows
    for name in once[0]:
        one, two = (torch.cat([batch[name] for batch in batches])[:windows] for batches in (once, ranks))
        assert torch.equal(one, two), name
    counted = torch.cat([batch["loss_mask"] for batch in ranks]).sum(1)
    assert (counted[: windows - 1] > 0).all() and not counted[windows:].any()


def test_more_spans_than_sentinels_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"loses \d+ spans, but there are 100 sentinels; raise objective.mean_span"):
        SpanCorruption(4096, 0, IDS, END)
    assert SpanCorruption(4096, 0, IDS, END, mean_span=8).window > 4096
