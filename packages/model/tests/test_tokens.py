"""Training data: one order whatever the run, shares and repetition as stated, documents apart, bad data refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import headwater_model.cpu as cpu  # noqa: F401

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from megatron.core.datasets.utils import Split
from tokenizers import Tokenizer

from headwater_model import cli, token_files
from headwater_model._contracts import manifest
from headwater_model._contracts.errors import UserError
from headwater_model.config import DataConfig, OptimizerConfig, ScheduleConfig
from headwater_model.data_check import check
from headwater_model.gpt import build
from headwater_model.heldout import HeldOut
from headwater_model.source_loss import mean_by_source, per_source_loss
from headwater_model.tokens import Rows, TrainingData, next_token
from headwater_model.trainer import Trainer

END, CONTEXT = 0, 16
Document = tuple[str, Sequence[int], int]
"""Source, ids with their end, bytes."""


def documents(seed: int, counts: dict[str, int], longest: int = 60) -> list[Document]:
    """Documents whose every id but the last is their number from 1 on, so that a window tells what it is made of."""
    generator = np.random.default_rng(seed)
    sources = generator.permutation([name for name, count in counts.items() for _ in range(count)])
    lengths = generator.integers(1, longest, len(sources))
    return [(str(s), [n + 1] * (k - 1) + [END], int(3 * k)) for n, (s, k) in enumerate(zip(sources, lengths))]  # noqa: B905


def write_split(folder: Path, split: str, found: list[Document], table: bool, per_source: bool) -> dict:
    counts: dict = {"tokens": sum(len(d[1]) for d in found), "bytes": sum(d[2] for d in found), "by_source": {}}
    groups = {split: found}
    for source in sorted({d[0] for d in found}) if table or per_source else ():
        own = [d for d in found if d[0] == source]
        counts["by_source"][source] = {"tokens": sum(len(d[1]) for d in own)}
        if per_source:
            groups[f"{split}-{source}"] = own
            counts["by_source"][source]["files"] = f"{split}-{source}"
    for name, group in groups.items():
        builder = IndexedDatasetBuilder(str(folder / f"{name}.bin"), dtype=np.uint16)
        for _, ids, _ in group:
            builder.add_document(torch.tensor(ids), [len(ids)])
        builder.finalize(str(folder / f"{name}.idx"))
    if table:
        columns = {"source": [d[0] for d in found], "bytes": [d[2] for d in found]}
        columns["tokens"] = [len(d[1]) for d in found]
        token_files.table_path(folder, split).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), token_files.table_path(folder, split))
    return counts


def write_tokens(
    folder: Path,
    train: list[Document],
    heldout: list[Document] | None = None,
    table: bool = True,
    per_source: bool = False,
    vocabulary: int = 512,
    tokenizer: str | None = None,
) -> Path:
    folder.mkdir(parents=True)
    splits = {"train": train, "heldout": heldout or train[:3]}
    counts = {name: write_split(folder, name, found, table, per_source) for name, found in splits.items()}
    (folder / "metrics.json").write_text(json.dumps({"vocabulary": vocabulary, "end_of_document_id": END, **counts}))
    (folder / "tokens.json").write_text(json.dumps(counts))
    made_from = {"tokenizer": tokenizer} if tokenizer else {}
    manifest.write(folder, manifest.Manifest("tokens", 1, "test", "0", "encode", {}, made_from))
    return folder


TRAIN = documents(1, {"web": 60, "code": 20, "law": 8})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "a", TRAIN)


def data(inputs: dict[str, Path] | Path, cache: Path, weights=None, sequences: int = 400, **settings) -> TrainingData:
    inputs = {"tokens": inputs} if isinstance(inputs, Path) else inputs
    config = DataConfig(weights=weights, document_mask=settings.pop("document_mask", False))
    return TrainingData(inputs, config, settings.pop("context", CONTEXT), sequences, 7, END, cache, **settings)


BLEND = {"web": 1, "code": 2, "law": 1}


def test_one_dataset_without_weights_is_read_in_the_very_order_of_megatrons_gptdataset(folder, tmp_path) -> None:
    tokens = IndexedDataset(str(folder / "train"))
    ours = data(folder, tmp_path / "ours", sequences=10)
    plain = GPTDataset(
        tokens, "plain", np.arange(len(tokens), dtype=np.int32), ours.parts[0].windows(CONTEXT), Split.train,
        GPTDatasetConfig(
            random_seed=7, sequence_length=CONTEXT, path_to_cache=str(tmp_path / "plain"), split="1",
            tokenizer=SimpleNamespace(eod=END, pad=-1, vocab_size=None, special_tokens_dict={}, unique_identifiers={}),
            reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
        ),
    )  # fmt: skip
    whole = data(folder, tmp_path / "ours", sequences=3 * len(plain))  # more epochs leave the first as it is
    for place in range(len(plain)):
        row = whole.batch(place, 1, 1, 0, 1)[0]
        assert torch.equal(row["tokens"][0], plain[place]["tokens"])
        assert torch.equal(row["labels"][0], plain[place]["labels"])
    assert torch.equal(ours.rows(0, 10).tokens, whole.rows(0, 10).tokens)


@pytest.mark.parametrize("weights", [None, BLEND])
def test_a_place_holds_the_same_window_whatever_the_layout_the_batches_and_the_steps_planned(
    weights, folder, tmp_path
) -> None:
    inputs = {"tokens": folder, "b": write_tokens(tmp_path / "b", documents(2, {"news": 30}))}
    weights = weights and {**weights, "b": 3}
    planned = data(inputs, tmp_path / "index", weights, sequences=96)
    longer = data(dict(reversed(inputs.items())), tmp_path / "index", weights, sequences=1500)
    expected = longer.rows(0, 96)
    assert torch.equal(planned.rows(0, 96).tokens, expected.tokens)
    for size, micro, ranks in [(8, 8, 1), (8, 2, 4), (32, 4, 2), (96, 3, 8)]:
        found = [
            part["tokens"]
            for first in range(0, 96, size)
            for rank in range(ranks)
            for part in planned.batch(first, size, micro, rank, ranks)
        ]
        assert {len(t) for t in found} == {micro}
        assert torch.equal(torch.cat(found), expected.tokens[:, :-1])
    other = data(inputs, tmp_path / "other", weights, sequences=96)  # another machine's index
    assert torch.equal(other.rows(0, 96).tokens, expected.tokens)
    another = TrainingData(inputs, DataConfig(weights=weights), CONTEXT, 96, 8, END, tmp_path / "index")
    assert not torch.equal(another.rows(0, 96).tokens, expected.tokens)


def test_killed_while_the_index_is_made_the_next_run_makes_it_again(folder, tmp_path, monkeypatch) -> None:
    expected = data(folder, tmp_path / "whole", BLEND).rows(0, 50)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            data(folder, tmp_path / "killed", BLEND)
    left = [path for path in (tmp_path / "killed").rglob("*shuffle_index.npy")]
    assert left
    for path in left:
        os.truncate(path, 100)
    assert torch.equal(data(folder, tmp_path / "killed", BLEND).rows(0, 50).tokens, expected.tokens)


def test_every_epoch_reads_each_token_once(folder, tmp_path) -> None:
    size = data(folder, tmp_path).parts[0].windows(CONTEXT)
    read = data(folder, tmp_path, sequences=3 * size)
    at_hand = np.bincount(np.concatenate([ids for _, ids, _ in TRAIN]), minlength=100)
    orders = []
    for epoch in range(3):
        rows = read.rows(epoch * size, size)
        found = np.bincount(rows.tokens[:, 1:].flatten().numpy(), minlength=100)
        assert (found <= at_hand).all() and (at_hand - found).sum() <= CONTEXT  # the last window is not full
        orders.append(rows.tokens)
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])


def test_after_any_number_of_windows_each_source_has_its_share(folder, tmp_path) -> None:
    read = data(folder, tmp_path, {"web": 0.2, "code": 0.7, "law": 0.1}, sequences=300)
    assert read.names == ["code", "law", "web"]
    sources = read.rows(0, 300).sources
    assert (sources == sources[:, :1]).all()
    for windows in range(1, 301):
        found = np.bincount(sources[:windows, 0], minlength=3)
        assert np.abs(found - np.array([0.7, 0.1, 0.2]) * windows).max() <= 1.5


def test_a_source_is_the_same_from_the_table_from_its_own_files_and_from_a_dataset_of_its_own(folder, tmp_path) -> None:
    own_files = write_tokens(tmp_path / "own", TRAIN, table=False, per_source=True)
    inputs = {s: write_tokens(tmp_path / s, [d for d in TRAIN if d[0] == s], table=False) for s in BLEND}
    found = [data(where, tmp_path / "index", BLEND) for where in (folder, own_files, inputs)]
    expected = found[0].rows(0, 200)
    for other in found[1:]:
        rows = other.rows(0, 200)
        assert other.names == found[0].names
        assert torch.equal(rows.tokens, expected.tokens) and torch.equal(rows.sources, expected.sources)
        assert torch.equal(rows.documents, expected.documents)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), min_size=3, max_size=30), st.integers(2, 20))
def test_every_token_is_told_its_own_document_and_source(tmp_path_factory, lengths, context) -> None:
    where = tmp_path_factory.mktemp("told")
    train = [(source, [n + 1] * (k - 1) + [END], 1) for n, (source, k) in enumerate(lengths)]
    if sum(k for _, k in lengths) <= context:
        return
    read = data(write_tokens(where / "a", train), where / "index", sequences=60, context=context)
    rows = read.rows(0, 60)
    assert (rows.documents[:, 0] == 0).all()
    for tokens, number, sources in zip(rows.tokens, rows.documents, rows.sources, strict=True):
        ended = torch.cat([torch.zeros(1, dtype=torch.long), (tokens == END).long().cumsum(0)[:-1]])
        assert torch.equal(number, ended)
        for token, source in zip(tokens.tolist(), sources.tolist(), strict=True):
            assert token == END or read.names[source] == train[token - 1][0]
        for document in number.unique():
            assert len(sources[number == document].unique()) == 1


@pytest.mark.parametrize("weights", [None, BLEND])
def test_epochs_and_repetition_are_what_counting_the_windows_gives(weights, tmp_path) -> None:
    train = [(source, [n + 1] * len(ids), 1) for n, (source, ids, _) in enumerate(TRAIN)]
    read = data(write_tokens(tmp_path / "a", train), tmp_path, weights, sequences=250)
    size = {part.name: part.windows(CONTEXT) for part in read.parts}
    windows = dict.fromkeys(size, 0)
    times: dict[str, list[set[int]]] = {name: [] for name in size}  # documents of each time a part was read
    for place in range(600):
        if place % 250 == 0:  # the order starts again
            since = dict.fromkeys(size, 0)
        rows = read.rows(place, 1)
        name = read.names[rows.sources[0, 0]] if weights else "tokens"
        if since[name] % size[name] == 0:
            times[name].append(set())
        times[name][-1] |= set(rows.tokens[0].tolist())
        windows[name] += 1
        since[name] += 1
        if place + 1 in (40, 130, 200, 250, 290, 500, 600):
            for name, counts in read.counts(place + 1).items():
                often = [sum(document in time for time in times[name]) for document in range(1, len(train) + 1)]
                assert counts["documents_repeated"] == sum(n > 1 for n in often)
                assert counts["tokens"] == windows[name] * CONTEXT
                assert counts["epochs"] == windows[name] / size[name]
                assert counts["share"] == windows[name] / (place + 1)
                once = min(windows[name], size[name], read.counts(min(place + 1, 250))[name]["tokens"] // CONTEXT)
                assert counts["tokens_repeated"] == (windows[name] - once) * CONTEXT
    assert any("law will be read" in line for line in read.report(250)) == bool(weights)


def test_the_log_says_what_is_repeated_and_what_is_left_out(folder, tmp_path) -> None:
    law = sum(len(ids) for source, ids, _ in TRAIN if source == "law")
    read = data(folder, tmp_path, {"law": 1, "web": 0}, sequences=3 * law // CONTEXT)
    line, rest = read.report(3 * law // CONTEXT)
    assert line.startswith("law will be read 3.") and "tokens of 8 documents again" in line
    assert rest == "left out by data.weights: code, web"


@pytest.fixture(scope="module")
def model(shape):
    return build(shape.model_copy(update={"context": 64}), seed=3).eval()


def test_under_a_document_mask_each_document_is_read_as_if_it_stood_alone(model, folder, tmp_path) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = [9, 1, 20, 5]
    parts = [torch.cat([torch.randint(1, 500, (n,), generator=generator), torch.tensor([END])]) for n in lengths]
    tokens = torch.cat([torch.tensor([END]), *parts])[None]
    documents = torch.cat([torch.tensor([0]), torch.arange(4).repeat_interleave(torch.tensor(lengths) + 1)])[None]
    batch = next_token(Rows(tokens, documents, torch.zeros_like(tokens)), document_mask=True)
    with torch.no_grad():
        found = model(batch["tokens"], attention_mask=batch["attention_mask"], labels=batch["labels"])[0]
        alone = []
        for part in parts:
            alone.append(model(torch.cat([torch.tensor([END]), part[:-1]])[None], labels=part[None])[0])
        unmasked = model(batch["tokens"], labels=batch["labels"])[0]
    assert torch.allclose(found, torch.cat(alone), atol=1e-5)
    assert not torch.allclose(found, unmasked, atol=1e-3)
    expected = torch.cat([torch.arange(n + 1) for n in lengths])
    assert torch.equal(batch["position_ids"][0], expected)
    masked, plain = (data(folder, tmp_path, document_mask=m).batch(8, 8, 4, 0, 1) for m in (True, False))
    for one, two in zip(masked, plain, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in two)
        assert set(one) - set(two) == {"attention_mask", "position_ids"}


def test_loss_by_source_is_the_loss_of_its_tokens(folder, tmp_path, shape) -> None:
    read = data(folder, tmp_path)
    trainer = Trainer(build(shape, seed=3), OptimizerConfig(), ScheduleConfig(kind="constant", steps=9))
    loss = per_source_loss(read.names)
    rows = [trainer.evaluate(read.batch(first, 8, 4, 0, 1), loss) for first in (0, 8)]
    batches = [batch for first in (0, 8) for batch in read.batch(first, 8, 4, 0, 1)]
    with torch.no_grad():
        nats = torch.cat([trainer.module(b["tokens"], labels=b["labels"]) for b in batches])
    sources = torch.cat([b["source"] for b in batches])
    found = mean_by_source(rows, read.names)
    assert len(found) == 3
    for number, name in enumerate(read.names):
        assert found[f"loss/{name}"] == pytest.approx(nats[sources == number].double().mean().item(), rel=1e-6)
    for row in rows:
        assert row["loss"] == pytest.approx(sum(row[f"loss/{n}"] * row[f"share/{n}"] for n in read.names), rel=1e-6)
    single = data(folder, tmp_path, BLEND)
    row = trainer.evaluate(single.batch(0, 1, 1, 0, 1), per_source_loss(single.names))
    assert len(mean_by_source([row], single.names)) == 1  # what did not occur has no loss, not a loss of 0
    trained = [trainer.step(read.batch(0, 8, 4, 0, 1), loss) for _ in range(2)]
    assert trained[1]["loss"] < trained[0]["loss"]


def test_held_out_loss_and_bits_a_source_and_in_all(model, tmp_path, tokenizer_folder) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    texts = [("web", "Lists are mutable."), ("law", "The return value of f()"), ("web", "naïve – and a bit longer, so")]
    found = [(s, [*tokenizer.encode(t).ids, END], len(t.encode())) for s, t in texts]
    told = write_tokens(tmp_path / "told", TRAIN, found)
    untold = write_tokens(tmp_path / "untold", TRAIN, found, table=False)
    sets = [HeldOut(f, 64, tokenizer, END, None, document_mask=True) for f in (told, untold)]
    assert sets[0].names == ["law", "web"] and sets[1].names == ["all"]
    assert sets[0].bytes == sets[1].bytes == sum(d[2] for d in found)
    trainer = Trainer(model, OptimizerConfig(), ScheduleConfig(kind="constant"))
    row = trainer.evaluate(sets[0].batches(2, 0, 1), per_source_loss(sets[0].names))
    nats = {}
    for source, ids, _ in found:
        with torch.no_grad():
            alone = model(torch.tensor([[END, *ids[:-1]]]), labels=torch.tensor([ids])).sum().item()
        nats[source] = nats.get(source, 0) + alone
    by_source = sets[0].by_source(row)
    for source, total in nats.items():
        size = sum(d[2] for d in found if d[0] == source)
        assert by_source[source]["bytes"] == size
        assert by_source[source]["bits_per_byte"] == pytest.approx(total / size / np.log(2), rel=1e-4)
    assert sets[0].bits_per_byte(row["loss"]) == pytest.approx(sum(nats.values()) / sets[0].bytes / np.log(2), rel=1e-4)


def test_held_out_windows_over_any_number_of_ranks_predict_each_token_once(tmp_path) -> None:
    where = write_tokens(tmp_path / "a", TRAIN, TRAIN[:20])
    stream = [token for _, ids, _ in TRAIN[:20] for token in ids]
    for micro, ranks in [(1, 1), (4, 3), (64, 2)]:
        held = HeldOut(where, CONTEXT, None, END, None)
        of_ranks = [held.batches(micro, rank, ranks) for rank in range(ranks)]
        assert len({len(batches) for batches in of_ranks}) == 1
        labels, mask = (torch.cat([b[n] for bs in of_ranks for b in bs]) for n in ("labels", "loss_mask"))
        assert labels[mask > 0].tolist() == stream
    limited = HeldOut(where, CONTEXT, None, END, 100)
    assert limited.tokens <= 100 < limited.tokens + len(TRAIN[20][1]) + 60


def test_held_out_samples_of_another_shape_count_where_their_windows_are_whole(tmp_path) -> None:
    def halves(rows: Rows, first: int) -> dict[str, torch.Tensor]:
        mask = torch.ones(len(rows.tokens), 4)
        mask[:, 0] = 0
        return {"tokens": rows.tokens[:, :4], "labels": rows.tokens[:, 1:5], "loss_mask": mask}

    held = HeldOut(write_tokens(tmp_path / "a", TRAIN, TRAIN[:20]), CONTEXT, None, END, None, objective=halves)
    masks = [b["loss_mask"] for rank in range(2) for b in held.batches(4, rank, 2)]
    assert held.tokens % CONTEXT and sum(mask.sum().item() for mask in masks) == held.tokens // CONTEXT * 3


class TestNames:
    def test_an_input_stands_for_all_of_it_and_a_source_of_two_inputs_is_told_by_both(self, folder, tmp_path) -> None:
        inputs = {"tokens": folder, "b": write_tokens(tmp_path / "b", documents(2, {"web": 30, "news": 20}))}
        read = data(inputs, tmp_path, {"b": 1, "tokens/web": 2, "law": 1})
        assert [(part.name, part.share) for part in read.parts] == [("b", 0.25), ("law", 0.25), ("tokens/web", 0.5)]
        assert read.names == ["b/web", "law", "news", "tokens/web"]

    @pytest.mark.parametrize(
        ("weights", "told"),
        [
            ({"wbe": 1}, "weights.wbe: no such source or input; did you mean web?"),
            ({"web": 1}, "weights.web means b/web and tokens/web; write INPUT/SOURCE"),
            ({"tokens": 1, "law": 1}, "law of tokens is weighed twice"),
            ({"law": 1, "tokens/law": 1}, "law of tokens is weighed twice"),
        ],
    )
    def test_a_name_that_cannot_be_read_is_one_line(self, weights, told, folder, tmp_path) -> None:
        inputs = {"tokens": folder, "b": write_tokens(tmp_path / "b", documents(2, {"web": 30}))}
        with pytest.raises(UserError) as error:
            data(inputs, tmp_path, weights)
        assert told in str(error.value) and "\n" not in str(error.value)

    @pytest.mark.parametrize("weights", [{"web": -1}, {"web": 0}, {}, {"web": float("nan")}, {"web": float("inf")}])
    def test_weights_that_are_none_are_refused(self, weights) -> None:
        with pytest.raises(ValueError, match="weight"):
            DataConfig(weights=weights)


def _spoil_ids(folder: Path) -> None:
    ids = np.memmap(folder / "train.bin", np.uint16, "r+")
    ids[-2] = 600


def _cut_ids(folder: Path) -> None:
    os.truncate(folder / "heldout.bin", 10)


def _cut_index(folder: Path) -> None:
    os.truncate(folder / "train.idx", 200)


def _other_index(folder: Path) -> None:
    shutil.copy(folder / "heldout.idx", folder / "train.idx")


def _other_table(folder: Path) -> None:
    shutil.copy(folder / "documents/heldout.parquet", folder / "documents/train.parquet")


def _no_tokens(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["train"]["tokens"] = 0
    (folder / "metrics.json").write_text(json.dumps(metrics))


def _other_counts(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["train"]["by_source"]["law"]["tokens"] += 1
    (folder / "metrics.json").write_text(json.dumps(metrics))


def _other_end(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "end_of_document_id": 5}))


def _many_ids(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "vocabulary": 5000}))


class TestBadData:
    @pytest.mark.parametrize(
        ("spoil", "told"),
        [
            (_spoil_ids, "document 87 has the id 600, but the model's ids end at 511"),
            (_cut_ids, "heldout.bin: 10 bytes, but its index says"),
            (_cut_index, "train.idx: cut short"),
            (_other_index, "train.bin: "),
            (_other_table, "train.parquet: not the documents of train.idx"),
            (_no_tokens, "the train split is empty"),
            (_other_counts, "tokens of law by metrics.json"),
            (_other_end, "documents end in the id 5"),
            (_many_ids, "5000 ids, but the tokenizer has 512 and the model 512"),
        ],
    )
    def test_is_refused_before_anything_starts(self, spoil, told, tokenizer_folder, tmp_path) -> None:
        made_with = manifest.manifest_hash(tokenizer_folder)
        where = write_tokens(tmp_path / "a", TRAIN, TRAIN[:9], tokenizer=made_with)
        check({"tokens": where}, DataConfig(weights=BLEND), tokenizer_folder, 512, CONTEXT)
        spoil(where)
        with pytest.raises(UserError) as error:
            check({"tokens": where}, DataConfig(), tokenizer_folder, 512, CONTEXT)
        assert told in str(error.value) and "\n" not in str(error.value)

    def test_another_tokenizer_than_the_datasets_is_refused(self, tokenizer_folder, tmp_path) -> None:
        where = write_tokens(tmp_path / "a", TRAIN, tokenizer="0" * 64)
        with pytest.raises(UserError, match="not the tokenizer that"):
            check({"tokens": where}, DataConfig(), tokenizer_folder, 512, CONTEXT)

    def test_a_source_shorter_than_one_window_is_refused(self, folder, tokenizer_folder) -> None:
        with pytest.raises(UserError, match="training tokens of law, fewer than one context of 1000"):
            check({"tokens": folder}, DataConfig(weights={"law": 1}), tokenizer_folder, 512, 1000)


def test_pretrain_reads_further_inputs_by_weight(folder, tokenizer_folder, tmp_path, capfd) -> None:
    more = write_tokens(tmp_path / "more", documents(2, {"news": 40}))
    where = ["--work", str(tmp_path / "work")]
    shape = ["budget.flops=1e11", "context=16", "batch=4", "model.layers=1", "model.hidden=32", "model.heads=2"]
    plan = [part for item in [*shape, "vocab_multiple=512"] for part in ("--set", item)]
    assert cli.main(["plan", "--in", f"tokens={folder}", "--out", str(tmp_path / "plan"), *where, *plan]) == 0
    inputs = {"tokens": folder, "more": more, "plan": tmp_path / "plan", "tokenizer": tokenizer_folder}
    named = [part for name, path in inputs.items() for part in ("--in", f"{name}={path}")]
    settings = ["steps=20", "micro_batch=4", "threads=1", "data.document_mask=true"]
    for weights, told in [("{more: 1, law: 3}", "more will be read"), ("{laws: 1}", "did you mean law?")]:
        given = [part for item in [*settings, f"data.weights={weights}"] for part in ("--set", item)]
        code = cli.main(["pretrain", *named, "--out", str(tmp_path / "out"), *where, *given])
        printed = capfd.readouterr()
        assert code == (1 if "laws" in weights else 0), printed.err
        assert told in printed.out + printed.err
