"""The compressor baseline: its sizes are those of whole runs, and its text is what the model saw."""

from __future__ import annotations

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyppmd
import pytest

from headwater_eval.cli import main
from headwater_eval.compressor import SEPARATOR, PPMd, measure

TEXTS = [
    Path(path).read_text(errors="replace") for path in (os.__file__, subprocess.__file__, json.__file__, lzma.__file__)
]


def compress(corpus: Path, tmp_path: Path, *options: str) -> dict:
    arguments = ["--in", str(corpus), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *options]
    assert main(["compressor", "--set", "memory_mb=16", *arguments]) == 0
    return json.loads((tmp_path / "out/metrics.json").read_text())


def ppmd_size(data: bytes, order: int) -> int:
    encoder = pyppmd.Ppmd7Encoder(order, 16 << 20)
    return len(encoder.encode(data)) + len(encoder.flush())


def test_bits_per_byte_equal_those_of_two_whole_runs(tmp_path: Path, write_corpus) -> None:
    train, heldout = TEXTS[:2], TEXTS[2:]
    metrics = compress(write_corpus(tmp_path / "corpus", train, heldout), tmp_path, "--set", "orders=[4,6]")
    first = b"".join(text.encode() + SEPARATOR for text in train)
    both = first + b"".join(text.encode() + SEPARATOR for text in heldout)
    size = sum(len(text.encode()) for text in heldout)
    for order in (4, 6):
        expected = 8 * (ppmd_size(both, order) - ppmd_size(first, order)) / size
        assert metrics[f"ppmd-{order}"]["value"] == expected
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
    xz = [len(lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters)) for data in (first, both)]
    assert metrics["xz"]["value"] == 8 * (xz[1] - xz[0]) / size
    assert metrics["heldout"]["value"] == min(metrics[name]["value"] for name in ("ppmd-4", "ppmd-6", "xz"))


def test_training_text_helps_only_where_it_was_read(tmp_path: Path, write_corpus) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["x" * 50, TEXTS[0]], [TEXTS[0][:2000]])
    whole = compress(corpus, tmp_path, "--set", "xz=false")["heldout"]
    little = compress(corpus, tmp_path, "--set", "xz=false", "--set", "train_bytes=60")["heldout"]
    assert whole["value"] < 0.2 < 1 < little["value"] and little["train_bytes"] == 51


def test_pieces_may_be_cut_anywhere() -> None:
    data = TEXTS[0].encode()[:5000]
    one = measure(lambda: PPMd(6, 1 << 20), iter([data]), iter([data]), 5000)
    many = measure(lambda: PPMd(6, 1 << 20), (data[i : i + 7] for i in range(0, 5000, 7)), iter([data]), 5000)
    assert (one.train, one.both) == (many.train, many.both)


def test_no_heldout_text_is_one_line(tmp_path: Path, capsys, write_corpus) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["text"], [""])
    assert main(["compressor", "--in", str(corpus), "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]) == 1
    assert "no text in it" in capsys.readouterr().err


def test_killed_and_run_again_keeps_the_finished_compressor_and_ends_in_the_same_bytes(
    tmp_path: Path, write_corpus
) -> None:
    corpus = write_corpus(tmp_path / "corpus", [text * 6 for text in TEXTS], TEXTS[:1])
    options = ["--set", "orders=[2,24]", "--set", "memory_mb=64", "--set", "processes=1", "--set", "xz=false"]
    expected = compress(corpus, tmp_path / "whole", *options)

    def command(folder: str) -> list[str]:
        program = "import sys; from headwater_eval.cli import main; sys.exit(main(sys.argv[1:]))"
        where = ["--in", str(corpus), "--out", str(tmp_path / folder), "--work", str(tmp_path / "killed")]
        return [sys.executable, "-c", program, "compressor", *where, *options]

    process = subprocess.Popen(command("out"))
    kept = None
    while kept is None and process.poll() is None:
        kept = next((tmp_path / "killed").rglob("ppmd-2.json"), None)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and kept is not None and not (tmp_path / "out").exists()
    again = subprocess.run(command("out"), check=True, capture_output=True, text=True).stdout
    assert "ppmd-24:" in again and "ppmd-2:" not in again
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == expected


@pytest.mark.parametrize("orders", ["[1]", "[6,6]", "[]"])
def test_orders_that_ppmd_has_not_are_refused(tmp_path: Path, orders: str, capsys, write_corpus) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["text"], ["text"])
    assert main(["compressor", "--in", str(corpus), "--out", str(tmp_path / "o"), "--set", f"orders={orders}"]) == 2
