"""T5 and BERT: what they count and see, that they learn, restore text and do so on any layout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import ranks
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from headwater_model import infilling, kernels, model, products, runtime
from headwater_model._contracts.errors import UserError
from headwater_model._contracts.sequences import IGNORED
from headwater_model.config import ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from headwater_model.objectives import MaskedLM, Objective, PrefixLM, SpanCorruption
from headwater_model.special_ids import SpecialIds
from headwater_model.tokens import Rows
from headwater_model.trainer import Trainer, next_token_loss

VOCABULARY, END, CONTEXT = 512, 0, 32
IDS = SpecialIds.above(VOCABULARY)
KINDS: dict[str, dict[str, Any]] = {
    "t5 1.1": {"kind": "encoder_decoder"},
    "t5 1.0": {"kind": "encoder_decoder", "activation": "relu", "tie_embeddings": True, "encoder_layers": 3},
    "t5 odd": {"kind": "encoder_decoder", "head_width": 24, "norm": "layernorm", "relative_buckets": 8},
    "bert": {"kind": "encoder"},
    "bert untied": {"kind": "encoder", "tie_embeddings": False, "token_types": 1, "activation": "gelu_tanh"},
}
EVERY = pytest.mark.parametrize("name", KINDS)


def config(name: str, **fields: Any) -> ModelConfig:
    small = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 640, "context": CONTEXT}
    return ModelConfig(**{**small, **KINDS.get(name, {"kind": name}), **fields})


def model_of(name: str, **fields: Any) -> Any:
    """With biases, norms and relative positions that are not at their start."""
    built = model.build(config(name, **fields), seed=3)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return built.eval()


def ids(rows: int, size: int, seed: int = 4) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, size), generator=torch.Generator().manual_seed(seed))


def as_rows(tokens: torch.Tensor) -> Rows:
    return Rows(tokens, torch.zeros_like(tokens), torch.zeros_like(tokens))


def objective_of(name: str, context: int = CONTEXT) -> Objective:
    if name == "prefix":
        return PrefixLM(context, 1)
    if "bert" in name:
        return MaskedLM(context, 1, IDS, END, VOCABULARY)
    return SpanCorruption(context, 1, IDS, END)


@EVERY
def test_what_a_shape_counts_is_what_is_built(name: str) -> None:
    shape = config(name)
    weights = dict(model.build(shape).named_parameters())
    tables = ("embedding", "relative", "norm", "bias")
    matrices = sum(w.numel() for n, w in weights.items() if not any(part in n for part in tables))
    assert sum(w.numel() for w in weights.values()) == shape.parameters
    assert matrices + (shape.vocab * shape.hidden if shape.tie_embeddings else 0) == shape.matrix_parameters


@EVERY
def test_a_step_costs_the_products_that_a_shape_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 5%: at a short context the target's length is rounded, and the decoder's hidden scores are computed."""
    monkeypatch.setattr(products, "SLOW", False)  # torch counts its own products only
    monkeypatch.setattr(kernels, "usable", lambda *_: False)
    shape, objective = config(name, context=64), objective_of(name, 64)
    text = ids(8, objective.window)
    batch, built = objective(as_rows(text), 0), model.build(shape)
    with FlopCounterMode(display=False) as counter:
        built(batch["tokens"], **{n: batch[n] for n in built.inputs if n in batch}).sum().backward()
    assert counter.get_total_flops() == pytest.approx(8 * 64 * shape.flops_per_token, rel=0.05)


@EVERY
def test_losses_are_those_of_the_logits_and_nothing_is_asked_where_a_label_is_ignored(name: str) -> None:
    built, objective = model_of(name), objective_of(name)
    text = ids(3, objective.window)
    batch = objective(as_rows(text), 0)
    given = {entry: batch[entry] for entry in built.inputs if entry in batch and entry != "labels"}
    labels = batch["labels"].clone()
    labels[0, 2] = IGNORED
    logits = built(batch["tokens"], **given)
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(built(batch["tokens"], **given, labels=labels), expected, rtol=1e-4, atol=1e-5)
    assert logits.shape == (*labels.shape, 640) and (expected == 0).any()


def test_the_encoder_sees_everything_and_the_decoder_nothing_later() -> None:
    built = model_of("t5 1.1")
    read, written = ids(1, 12), ids(1, 9, seed=5)
    logits = built(read, written)
    for place in (0, 11):
        changed = read.clone()
        changed[0, place] += 1
        assert (built(changed, written)[0, 0] - logits[0, 0]).abs().max() > 1e-4
    changed = written.clone()
    changed[0, 5] += 1
    other = built(read, changed)
    assert torch.equal(other[:, :5], logits[:, :5]) and not torch.equal(other[:, 5], logits[:, 5])


def test_every_mask_is_read_from_both_sides() -> None:
    built, tokens = model_of("bert"), ids(1, 12)
    logits = built(tokens)
    for place in (0, 11):
        changed = tokens.clone()
        changed[0, place] += 1
        assert (built(changed)[0, 6] - logits[0, 6]).abs().max() > 1e-4


def test_padding_changes_nothing() -> None:
    built, tokens = model_of("bert"), ids(2, 12)
    segments = torch.zeros(2, 17, dtype=torch.long)
    segments[:, 12:] = 1
    padded = torch.cat([tokens, ids(2, 5, seed=8)], 1)
    torch.testing.assert_close(built(padded, segments)[:, :12], built(tokens), rtol=1e-4, atol=1e-5)
    built, written = model_of("t5 1.0"), ids(2, 7, seed=5)
    torch.testing.assert_close(built(padded, written, segments == 1), built(tokens, written), rtol=1e-4, atol=1e-5)


def test_token_types_matter() -> None:
    built, tokens = model_of("bert"), ids(1, 8)
    other = built(tokens, token_types=torch.ones_like(tokens))
    assert torch.equal(built(tokens), built(tokens, token_types=torch.zeros_like(tokens)))
    assert (other - built(tokens)).abs().max() > 1e-3


def test_documents_of_one_row_do_not_see_each_other() -> None:
    """Their positions alone tell them apart from rows of their own: learned ones count through the row."""
    built, tokens = model_of("bert"), ids(1, 12)
    segments = torch.arange(12)[None] // 6
    changed = tokens.clone()
    changed[0, 8] += 1
    a, b = built(tokens, segments), built(changed, segments)
    assert torch.equal(a[:, :6], b[:, :6]) and not torch.equal(a[:, 6:], b[:, 6:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "encoder", "position": "rotary"}, "kind encoder needs position learned, not rotary"),
        ({"kind": "encoder", "activation": "swiglu"}, "without a gate"),
        ({"kind": "encoder", "biases": False}, "needs biases True"),
        ({"kind": "encoder_decoder", "kv_heads": 2}, "needs kv_heads None, not 2"),
        ({"kind": "encoder_decoder", "init": "t_fixup"}, "needs init fan_in"),
        ({"kind": "encoder_decoder", "relative_distance": 16}, "relative_distance more than half"),
        ({"position": "relative"}, "goes with kind encoder_decoder"),
    ],
)
def test_options_that_contradict_a_kind_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**fields)


def test_what_is_no_decoder_has_one_pipeline_stage_and_no_scalar_head() -> None:
    with pytest.raises(ValueError, match="needs parallel.pipeline 1"):
        ParallelConfig(pipeline=2).check(config("bert"))
    with pytest.raises(ValueError, match="needs parallel.recompute none"):
        ParallelConfig(recompute="selective").check(config("t5 1.1"))
    with pytest.raises(ValueError, match="no scalar head"):
        model.build(config("t5 1.1"), "scalar")


def train(
    name: str, windows: torch.Tensor, count: int, ranks: int = 1, rank: int = 0, lr: float = 1e-2, **fields: Any
) -> Any:
    """A trainer after `count` steps on all windows, corrupted anew in each; (loss, gradient norm) as its `curve`."""
    objective = objective_of(name)
    schedule = ScheduleConfig(steps=max(count, 20), warmup=5, floor=0.1)
    trainer: Any = Trainer(model.build(config(name, **fields), seed=5), OptimizerConfig(lr=lr), schedule)  # type: ignore[arg-type]
    share = len(windows) // ranks
    mine = windows[rank * share :][:share, : objective.window]
    trainer.curve = []
    for step in range(count):
        batch = objective(as_rows(mine), step * len(windows) + rank * share)
        halves = [{n: t[half] for n, t in batch.items()} for half in (slice(0, None, 2), slice(1, None, 2))]
        row = trainer.step(halves, next_token_loss)
        trainer.curve.append((row["loss"], row["grad_norm"]))
    return trainer


@pytest.fixture(scope="module")
def text(tokens_folder: Path) -> torch.Tensor:
    """int64 [8, 40]"""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(tokens_folder / "train"))  # what it gives lives as long as it does
    return torch.from_numpy(dataset[0].astype("int64"))[: 8 * 40].view(8, 40)


def test_a_masked_language_model_restores_what_it_has_read(text: torch.Tensor) -> None:
    """Behind masks that it has not seen, more often than the most frequent token would."""
    trained, untrained = train("bert", text.repeat(2, 1), 100, init="fan_in"), train("bert", text, 0)
    assert trained.curve[0][0] == pytest.approx(6.5, abs=0.3)
    objective = objective_of("bert")
    windows = text[:, : objective.window]
    tokens = objective(as_rows(windows), 10**6)["tokens"]
    masked = (tokens == IDS.mask).nonzero().tolist()
    truth = [int(windows[row, place]) for row, place in masked]

    def right(trainer: Any) -> float:
        guesses = infilling.fill_masks(trainer.module, tokens.tolist(), IDS.mask)
        assert [[i, guess.place] for i, row in enumerate(guesses) for guess in row] == masked
        found = [guess.ids[0] for row in guesses for guess in row]
        return sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth)

    frequent = max(truth.count(token) for token in truth) / len(truth)
    assert right(untrained) <= frequent < 0.2 and right(trained) > 0.7


@pytest.mark.parametrize("name", ["t5 1.1", "t5 1.0"])
def test_an_encoder_decoder_writes_the_spans_of_what_it_has_read(name: str, text: torch.Tensor) -> None:
    """Of cuts that it has not seen, more of each span's beginning than the most frequent token would have right."""
    text = text[:4]
    trained, untrained = train(name, text.repeat(4, 1), 120, lr=5e-3), train(name, text, 0)
    assert trained.curve[0][0] == pytest.approx(6.9, abs=0.7)
    objective: Any = objective_of(name)
    samples = objective(as_rows(text[:, : objective.window].repeat(8, 1)), 10**6)
    targets = [row[:-1] for row in samples["labels"].tolist()]
    missing = [token for row in targets for token in row if token not in IDS.sentinels]

    def spans(written: list[int]) -> list[list[int]]:
        return [infilling.put_back([mark], written, IDS) for mark in IDS.sentinels]

    def right(trainer: Any) -> float:
        found = infilling.write(
            trainer.module, samples["tokens"].tolist(), IDS.start, objective.target, temperature=0, stop_ids=[END]
        )
        pairs = [
            (truth, guess)
            for target, row in zip(targets, found, strict=True)
            for truth, guess in zip(spans(target), spans(row.tokens), strict=True)
        ]
        return sum(len(os.path.commonprefix(pair)) for pair in pairs) / len(missing)

    frequent = max(missing.count(token) for token in missing) / len(missing)
    assert right(untrained) < frequent < right(trained) - 0.1, (right(untrained), frequent, right(trained))


def test_a_prefix_model_learns_what_follows_a_prefix(text: torch.Tensor) -> None:
    curve = train("prefix", text, 40).curve
    assert curve[0][0] == pytest.approx(6.5, abs=0.3) and curve[-1][0] < 3


def test_what_is_written_ends_with_a_stop_and_does_not_depend_on_the_batch() -> None:
    built = model_of("t5 1.1")
    rows = [ids(1, size, seed=size)[0].tolist() for size in (3, 9, 5)]
    greedy = infilling.write(built, rows, IDS.start, 12, temperature=0)
    for row, found in zip(rows, greedy, strict=True):
        (alone,) = infilling.write(built, [row], IDS.start, 12, temperature=0)
        assert alone.tokens == found.tokens and alone.logprobs == pytest.approx(found.logprobs, abs=1e-4)
        logits = built(torch.tensor([row]), torch.tensor([[IDS.start, *found.tokens[:-1]]]))
        expected = logits.float().log_softmax(-1)[0].gather(-1, torch.tensor(found.tokens)[:, None]).squeeze(-1)
        assert found.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
        assert found.tokens == logits[0].argmax(-1).tolist()
    stop = greedy[1].tokens[4]
    stopped = infilling.write(built, rows, IDS.start, 12, temperature=0, stop_ids=[stop])
    for before, after in zip(greedy, stopped, strict=True):
        length = before.tokens.index(stop) + 1 if stop in before.tokens else 12
        assert after.tokens == before.tokens[:length] and len(after.logprobs) == length
    sampled = [infilling.write(built, rows, IDS.start, 12, seed=seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_what_has_nothing_to_read_or_too_much_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="a row is empty"):
        infilling.write(model_of("t5 1.1"), [[]], IDS.start, 3)
    with pytest.raises(UserError, match=f"a row has 33 ids, the model's context holds {CONTEXT}"):
        infilling.fill_masks(model_of("bert"), [[1] * 33], IDS.mask)


marks_or = st.one_of(st.sampled_from(IDS.sentinels[:3]), st.integers(1, 9))


@given(st.lists(marks_or, max_size=12), st.lists(marks_or, max_size=12))
def test_whatever_is_written_no_mark_stays_and_no_text_is_lost(shown: list[int], written: list[int]) -> None:
    text = [token + 10 if token < 10 else token for token in shown]
    whole = infilling.put_back(text, written, IDS)
    assert not set(IDS.sentinels) & set(whole)
    assert [token for token in whole if token >= 10] == [token for token in text if token < VOCABULARY]


RANKED = ["t5 1.1", "t5 1.0", "bert", "bert untied", "prefix"]
LAYOUTS = {
    "tensor": ParallelConfig(tensor=2),
    "tensor, attention computed again": ParallelConfig(tensor=2, recompute="selective"),
    "data": ParallelConfig(data=2),
    "ZeRO-1": ParallelConfig(data=2, zero=1),
    "layers computed again": ParallelConfig(data=2, recompute="full"),
}


def has(name: str, layout: str) -> bool:
    """Whether a model can be laid out so."""
    try:
        LAYOUTS[layout].check(config(name))
    except ValueError:
        return False
    return True


def test_each_learns_the_same_on_two_ranks(text: torch.Tensor, tmp_path: Path) -> None:
    """In float32, where only the order of sums differs."""
    torch.save(text, tmp_path / "text.pt")
    ranks.run("test_encoders", tmp_path, 2)
    found = json.loads((tmp_path / "found.json").read_text())
    for name in RANKED:
        one = train(name, text, 3)
        greedy = answer(name, one.module)
        for layout in (layout for layout in LAYOUTS if has(name, layout)):
            curve, answered = found[layout][name]
            for (loss, norm), (loss_of_two, norm_of_two) in zip(one.curve, curve, strict=True):
                assert loss == pytest.approx(loss_of_two, abs=1e-4), (name, layout)
                assert norm == pytest.approx(norm_of_two, rel=2e-3), (name, layout)
            assert answered == greedy, (name, layout)


def answer(name: str, built: Any) -> list[int]:
    """What a model says to one row with a gap; a prefix model's likeliest next ids."""
    if name == "prefix":
        return built(ids(1, 10))[0].argmax(-1).tolist()
    row = ids(1, 10)[0].tolist()
    row[4] = IDS.mask if "bert" in name else IDS.sentinels[0]
    if "bert" in name:
        return infilling.fill_masks(built, [row], IDS.mask, top=3)[0][0].ids
    return infilling.write(built, [row], IDS.start, 5, temperature=0)[0].tokens


def main(folder: Path) -> None:
    from megatron.core import parallel_state

    torch.set_num_threads(1)
    windows, found = torch.load(folder / "text.pt"), {}
    for layout, parallel in LAYOUTS.items():
        runtime.initialize(parallel, seed=1)
        rank, ranks = parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()
        found[layout] = {}
        for name in (name for name in RANKED if has(name, layout)):
            trained = train(name, windows, 3, ranks, rank)
            found[layout][name] = (trained.curve, answer(name, trained.module))
        parallel_state.destroy_model_parallel()
    if os.environ["RANK"] == "0":
        (folder / "found.json").write_text(json.dumps(found))
