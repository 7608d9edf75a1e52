"""Joining, taking a part of and looking into token datasets."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import real_documents, write_corpus
from test_encode import documents_of

from headwater_tokenizer.cli import main
from headwater_tokenizer.encoder import Encoder


def encoded(tmp_path, tokenizer, name, rows):
    corpus = write_corpus(tmp_path / f"corpus-{name}", rows, rows[:5])
    inputs = ["--in", f"corpus={corpus}", "--in", f"tokenizer={tokenizer}"]
    assert main(["encode", *inputs, "--out", str(tmp_path / name), "--work", str(tmp_path / "work")]) == 0
    return tmp_path / name


@pytest.fixture
def pair(tmp_path, tokenizer):
    return [encoded(tmp_path, tokenizer, name, rows) for name, rows in
            (("a", real_documents()[:60]), ("b", real_documents()[40:150]))]  # fmt: skip


def test_a_merged_dataset_is_the_one_of_the_joined_corpus(pair, tokenizer, tmp_path):
    inputs = [f"first={pair[0]}", f"second={pair[1]}", f"tokenizer={tokenizer}"]
    arguments = [item for value in inputs for item in ("--in", value)]
    assert main(["merge", *arguments, "--out", str(tmp_path / "m"), "--work", str(tmp_path / "work")]) == 0
    both = encoded(tmp_path, tokenizer, "both", [*real_documents()[:60], *real_documents()[40:150]])
    for name in ("train.bin", "train.idx"):
        assert (tmp_path / "m" / name).read_bytes() == (both / name).read_bytes()
    for name in ("metrics.json", "tokens.json"):
        merged, expected = (json.loads((folder / name).read_text()) for folder in (tmp_path / "m", both))
        assert merged["train"] == expected["train"]
    ids = pq.read_table(tmp_path / "m" / "documents" / "train.parquet")["id"].to_pylist()
    assert ids == [row[0] for row in [*real_documents()[:60], *real_documents()[40:150]]]


def test_a_subset_holds_whole_documents_in_their_order_up_to_the_cap(pair, tokenizer, tmp_path):
    inputs = ["--in", f"tokens={pair[1]}", "--in", f"tokenizer={tokenizer}", "--work", str(tmp_path / "work")]
    for out in ("s", "t"):
        assert main(["subset", *inputs, "--set", "tokens=5000", "--out", str(tmp_path / out)]) == 0
    assert (tmp_path / "s" / "train.bin").read_bytes() == (tmp_path / "t" / "train.bin").read_bytes()
    whole = [ids.tolist() for ids in documents_of(pair[1], "train")]
    part = [ids.tolist() for ids in documents_of(tmp_path / "s", "train")]
    assert 0 < sum(map(len, part)) <= 5000
    places = [whole.index(ids) for ids in part]
    assert places == sorted(places)
    figures = json.loads((tmp_path / "s" / "metrics.json").read_text())["train"]
    encoder = Encoder(tokenizer)
    assert figures["bytes"] == sum(len(encoder.decode(np.array(ids[:-1])).encode()) for ids in part)
    assert figures["tokens"] == sum(map(len, part))


def test_a_subset_of_a_source_holds_that_source_alone(pair, tokenizer, tmp_path, capsys):
    inputs = ["--in", f"tokens={pair[0]}", "--in", f"tokenizer={tokenizer}", "--work", str(tmp_path / "work")]
    command = ["subset", *inputs, "--set", "tokens=null", "--set"]
    assert main([*command, "sources=[docstring]", "--out", str(tmp_path / "s")]) == 0
    sources = json.loads((pair[0] / "metrics.json").read_text())["train"]["by_source"]
    assert json.loads((tmp_path / "s" / "metrics.json").read_text())["train"]["by_source"] == {
        "docstring": sources["docstring"]
    }
    capsys.readouterr()
    assert main([*command, "sources=[poem]", "--out", str(tmp_path / "t")]) == 1
    assert "no document of source poem; it has docstring, source" in capsys.readouterr().err


def test_peek_prints_the_documents_and_their_cuts(pair, tokenizer, capsys):
    capsys.readouterr()
    assert (
        main(["peek", str(pair[0]), "--tokenizer", str(tokenizer), "--document", "3", "--tokens-shown", "100000"]) == 0
    )
    shown = capsys.readouterr().out
    assert real_documents()[3][1] + "<|endoftext|>" in shown and "train document 3: " + real_documents()[3][0] in shown
    assert main(["peek", str(pair[0]), "--tokenizer", str(tokenizer), "--cut", "--tokens-shown", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[1].count("|") >= 2


def test_another_tokenizer_or_a_damaged_file_is_refused_by_name(pair, tokenizer, tmp_path, capsys):
    other = tmp_path / "other"
    corpus = write_corpus(tmp_path / "c", real_documents()[:50])
    work = ["--work", str(tmp_path / "work"), "--set", "vocab_size=500"]
    assert main(["train", "--in", str(corpus), "--out", str(other), *work]) == 0
    capsys.readouterr()
    assert main(["peek", str(pair[0]), "--tokenizer", str(other)]) == 1
    assert f"{other}: not the tokenizer that {pair[0]} was made with" in capsys.readouterr().err
    assert main(["peek", str(pair[0]), "--tokenizer", str(tokenizer), "--document", "60"]) == 1
    assert "it has 0 to 59" in capsys.readouterr().err
    with open(pair[0] / "train.bin", "ab") as f:
        f.write(b"\0\0")
    assert main(["peek", str(pair[0]), "--tokenizer", str(tokenizer)]) == 1
    assert "but its index says" in capsys.readouterr().err
