"""What a token dataset promises, and that a kill does not show in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import real_documents, seal, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headwater_tokenizer.cli import main
from headwater_tokenizer.megatron_format import read_index, write_index

FILES = (
    "train.bin", "train.idx", "heldout.bin", "heldout.idx", "rejects.jsonl", "metrics.json", "tokens.json",
    "documents/train.parquet", "documents/heldout.parquet",
)  # fmt: skip


def arguments(corpus, tokenizer, out, workers=1) -> list[str]:
    inputs = ["--in", f"corpus={corpus}", "--in", f"tokenizer={tokenizer}"]
    return ["encode", *inputs, "--out", str(out), "--work", str(out.parent / "work"), "--set", f"workers={workers}"]


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def documents_of(folder, split) -> list[np.ndarray]:
    lengths, dtype = read_index(folder / f"{split}.idx")
    return np.split(np.fromfile(folder / f"{split}.bin", dtype), np.cumsum(lengths)[:-1])


@pytest.fixture(scope="module")
def tokens(corpus, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokens") / "tokens"
    assert main(arguments(corpus, tokenizer, out)) == 0
    return out


def test_every_document_decodes_to_its_text_and_ends_in_endoftext(tokens, tokenizer):
    loaded = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    rows = real_documents()
    expected = {"train": [*rows[0::2], *rows[1::2]], "heldout": rows[:20]}  # two shards, dealt in turn
    for split, texts in expected.items():
        documents = documents_of(tokens, split)
        assert len(documents) == len(texts)
        for ids, (_, text, _) in zip(documents, texts, strict=True):
            assert ids[-1] == loaded.token_to_id("<|endoftext|>")
            assert loaded.decode(ids[:-1].tolist(), skip_special_tokens=False) == text


def test_metrics_count_tokens_bytes_and_documents_by_split_and_source(tokens):
    metrics = json.loads((tokens / "metrics.json").read_text())
    documents = real_documents()
    assert metrics["train"]["tokens"] == len(np.fromfile(tokens / "train.bin", np.uint16))
    assert metrics["train"]["bytes"] == sum(len(text.encode()) for _, text, _ in documents)
    assert metrics["train"]["documents"] == len(documents)
    assert metrics["train"]["longest_document_tokens"] == max(map(len, documents_of(tokens, "train")))
    for name in ("tokens", "bytes", "documents", "words"):
        parts = metrics["train"]["by_source"]
        assert set(parts) == {"source", "docstring"}
        assert sum(part[name] for part in parts.values()) == metrics["train"][name]


def test_megatron_reads_the_files(tokens):
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    for split in ("train", "heldout"):
        dataset = indexed.IndexedDataset(str(tokens / split))
        ours = documents_of(tokens, split)
        assert len(dataset) == len(ours)
        for number, ids in enumerate(ours):
            np.testing.assert_array_equal(dataset[number], ids)
        np.testing.assert_array_equal(dataset.document_indices, np.arange(len(ours) + 1))


@given(st.lists(st.lists(st.integers(0, 65_499), max_size=20), min_size=1), st.sampled_from([np.uint16, np.int32]))
def test_ids_and_index_read_back_as_written(tmp_path_factory, documents, kind):
    folder, dtype = tmp_path_factory.mktemp("format"), np.dtype(kind)
    np.concatenate([np.array(ids, dtype) for ids in documents]).tofile(folder / "x.bin")
    write_index(folder / "x.idx", np.array([len(ids) for ids in documents], np.int32), dtype)
    assert read_index(folder / "x.idx")[1] == dtype
    assert [ids.tolist() for ids in documents_of(folder, "x")] == documents


def test_an_index_of_another_format_is_refused(tmp_path):
    (tmp_path / "x.idx").write_bytes(b"TNTIDX\x00\x00\x00" + bytes(40))
    with pytest.raises(ValueError, match="not an MMIDIDX"):
        read_index(tmp_path / "x.idx")


def test_the_number_of_processes_does_not_show(corpus, tokenizer, tokens, tmp_path):
    command = [sys.executable, "-m", "headwater_tokenizer.cli"]
    command += arguments(corpus, tokenizer, tmp_path / "tokens", workers=2)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "tokens") == contents(tokens)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed_gives_the_same_bytes_without_starting_again(tokenizer, tmp_path, workers):
    corpus = write_corpus(tmp_path / "corpus", real_documents() * 2, rows=8)
    command = [sys.executable, "-m", "headwater_tokenizer.cli"]
    first = subprocess.Popen([*command, *arguments(corpus, tokenizer, tmp_path / "killed", workers)])
    while len(list(tmp_path.glob("work/encode/*/groups/*.json"))) < 5:
        assert first.poll() is None, "it ended before the kill"
        time.sleep(0.001)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()

    second = subprocess.run(
        [*command, *arguments(corpus, tokenizer, tmp_path / "killed", workers)], capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr
    assert "shards were done before: going on with the others" in second.stdout
    (tmp_path / "fresh").mkdir()
    assert main(arguments(corpus, tokenizer, tmp_path / "fresh" / "tokens")) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "fresh" / "tokens")


def test_workers_end_with_a_killed_stage(tokenizer, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", real_documents() * 6, rows=16)
    command = [sys.executable, "-m", "headwater_tokenizer.cli"]
    stage = subprocess.Popen([*command, *arguments(corpus, tokenizer, tmp_path / "tokens", 2)], start_new_session=True)
    while not list(tmp_path.glob("work/encode/*/groups/*.json")):
        assert stage.poll() is None, "it ended before the kill"
        time.sleep(0.001)
    assert _alive_in_session(stage.pid) >= 3  # the stage and its two workers
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    deadline = time.monotonic() + 10
    while _alive_in_session(stage.pid):
        assert time.monotonic() < deadline, "a worker outlived its stage"
        time.sleep(0.02)


def test_unusable_records_are_set_aside_counted_and_named(tokenizer, tmp_path):
    good = real_documents()[:30]
    corpus = write_corpus(tmp_path / "corpus", [*good[:10], ("lost", None, "source"), *good[10:]], good[:5])
    bad = pa.array([b"fine", b"\xff\xfe broken"], pa.binary()).view(pa.string())
    table = pa.table({"id": ["ok", "latin"], "text": bad, "source": ["source", "source"]})
    pq.write_table(table, corpus / "train" / "part-00001.parquet")
    seal(corpus)
    assert main(arguments(corpus, tokenizer, tmp_path / "tokens")) == 0
    rejects = [json.loads(line) for line in (tmp_path / "tokens" / "rejects.jsonl").read_text().splitlines()]
    assert [(r["id"], r["shard"], r["rule"]) for r in rejects] == [
        ("lost", "part-00000.parquet", "text is null"),
        ("latin", "part-00001.parquet", "text is not UTF-8"),
    ]
    metrics = json.loads((tmp_path / "tokens" / "metrics.json").read_text())
    assert (metrics["train"]["documents"], metrics["train"]["rejected"]) == (31, 2)


@pytest.mark.parametrize("fault", ["no shard", "no document", "no column", "no Parquet", "no endoftext"])
def test_unusable_input_is_one_line_and_publishes_nothing(fault, tokenizer, tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus", real_documents()[:30])
    shard = corpus / "heldout" / "part-00000.parquet"
    expected = str(shard)
    if fault == "no shard":
        shard.unlink()
        expected = str(shard.parent)
    elif fault == "no document":
        pq.write_table(pq.read_table(shard).slice(0, 0), shard)
        expected = str(shard.parent)
    elif fault == "no column":
        pq.write_table(pq.read_table(shard).drop_columns("source"), shard)
    elif fault == "no Parquet":
        shard.write_bytes(shard.read_bytes()[:100])
    else:
        plain = Tokenizer.from_str((tokenizer / "tokenizer.json").read_text().replace("endoftext", "eot"))
        tokenizer = tmp_path / "tokenizer"
        tokenizer.mkdir()
        plain.save(str(tokenizer / "tokenizer.json"))
        (tokenizer / "manifest.json").write_text(_tokenizer_manifest(tokenizer))
        expected = "<|endoftext|>"
    seal(corpus)
    capsys.readouterr()
    assert main(arguments(corpus, tokenizer, tmp_path / "tokens")) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and expected in error
    assert not (tmp_path / "tokens").exists()


def _tokenizer_manifest(folder) -> str:
    from headwater_tokenizer._contracts import manifest

    manifest.write(folder, manifest.Manifest("tokenizer", 1, "headwater-tokenizer", "0.1.0", "train", {}))
    return (folder / "manifest.json").read_text()


def _alive_in_session(session: int) -> int:
    """Processes of a session that run: zombies, which nobody has reaped yet, are dead."""
    found = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    state, _, _, its_session = f.read().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            found += int(its_session) == session and state != "Z"
    return found


def test_per_source_files_hold_each_source_in_the_same_order(corpus, tokenizer, tokens, tmp_path):
    assert main([*arguments(corpus, tokenizer, tmp_path / "tokens"), "--set", "per_source=true"]) == 0
    names = [name for name in FILES if name != "tokens.json"]  # which names the files of each source
    assert all((tmp_path / "tokens" / name).read_bytes() == (tokens / name).read_bytes() for name in names)
    rows = real_documents()
    ordered = [*rows[0::2], *rows[1::2]]
    together = documents_of(tmp_path / "tokens", "train")
    for source in ("source", "docstring"):
        expected = [ids for ids, row in zip(together, ordered, strict=True) if row[2] == source]
        found = documents_of(tmp_path / "tokens", f"train-{source}")
        assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]


def test_tokens_json_counts_by_source_and_language(tokenizer, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", real_documents()[:30])
    shard = corpus / "train" / "part-00000.parquet"
    table = pq.read_table(shard)
    langs = pa.array(["en", "de", None] * (len(table) // 3), pa.string())
    pq.write_table(table.append_column("lang", langs), shard)
    seal(corpus)
    assert main(arguments(corpus, tokenizer, tmp_path / "tokens")) == 0
    detail = json.loads((tmp_path / "tokens" / "tokens.json").read_text())["train"]
    ids = documents_of(tmp_path / "tokens", "train")
    assert detail["by_language"]["de"]["tokens"] == sum(map(len, ids[1::3]))
    assert detail["by_language"]["unknown"]["documents"] == 10
    assert detail["longest_document_tokens"] == max(map(len, ids))
    parts = detail["by_source_and_language"]
    assert sum(part["tokens"] for part in parts) == detail["tokens"] == sum(map(len, ids))
