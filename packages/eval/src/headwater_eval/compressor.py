"""Stage `compressor`: what a statistical compressor makes of the same text, in the language model's unit.

A compressor reads the training text and then the held-out text; the bits that the held-out text adds, per byte
of it, are its bits per byte: 8 * (size(train + heldout) - size(train)) / bytes(heldout). PPMd (Shkarin 2002,
variant H as in 7-Zip), which predicts each byte from the longest contexts seen before, is the strong baseline.
It has an advantage over a language model whose weights are fixed: it goes on learning while it reads the
held-out text.
"""

from __future__ import annotations

import ctypes
import json
import lzma
import multiprocessing.connection
import os
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from ._contracts.stage import Run
from .config import CompressorConfig
from .documents import Document, stream

SEPARATOR = b"\0"
"""Between documents: one byte that text does not hold, as <|endoftext|> is one token."""


class Compressor(Protocol):
    """A streaming compressor."""

    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


class PPMd:
    """pyppmd's encoder behind the interface of the standard library's compressors."""

    def __init__(self, order: int, memory_bytes: int):
        import pyppmd

        self._encoder = pyppmd.Ppmd7Encoder(order, memory_bytes)

    def compress(self, data: bytes) -> bytes:
        return self._encoder.encode(data)

    def flush(self) -> bytes:
        return self._encoder.flush()


@dataclass(frozen=True)
class Sizes:
    """Compressed sizes in bytes, and how many went in."""

    train: int
    both: int
    train_bytes: int
    heldout_bytes: int
    """UTF-8 bytes of the held-out text, separators not counted."""

    @property
    def bits_per_byte(self) -> float:
        """Bits that each byte of held-out text added."""
        return 8 * (self.both - self.train) / self.heldout_bytes


def run(run: Run) -> None:
    """Run every compressor in a process of its own and write the figures; finished ones are kept across kills."""
    config: CompressorConfig = run.config
    corpus = run.inputs["corpus"]
    if not any(document.text for document in stream(corpus, "heldout")):
        raise UserError(f"{corpus / 'heldout'}: no text in it; raise the held-out share of the corpus")
    jobs: dict[str, tuple] = {"xz": ("xz",)} if config.xz else {}  # the slowest first
    jobs |= {f"ppmd-{order}": ("ppmd", order, config.memory_mb << 20) for order in config.orders}
    results = {name: run.work / f"{name}.json" for name in jobs}
    waiting = [name for name in jobs if not results[name].exists()]
    context = multiprocessing.get_context("spawn")
    busy: dict[Any, SpawnProcess] = {}  # by sentinel
    while waiting or busy:
        while waiting and len(busy) < config.processes:
            name = waiting.pop(0)
            arguments = (jobs[name], corpus, config.train_bytes, results[name])
            worker = context.Process(target=_work, args=arguments, name=name, daemon=True)
            worker.start()
            busy[worker.sentinel] = worker
        for sentinel in multiprocessing.connection.wait(list(busy)):
            worker = busy.pop(sentinel)
            worker.join()
            if worker.exitcode:
                raise UserError(
                    f"{worker.name} ended with code {worker.exitcode}, probably for want of memory; "
                    "lower compressor.memory_mb or compressor.processes"
                )
            run.log(f"{worker.name}: {_read(results[worker.name]).bits_per_byte:.4f} bits per byte of held-out text")
    _write(run, {name: _read(path) for name, path in results.items()})


def _write(run: Run, done: dict[str, Sizes]) -> None:
    n = sum(1 for _ in stream(run.inputs["corpus"], "heldout"))
    rows = {name: {"metric": "bits_per_byte", "value": s.bits_per_byte, "n": n, "chance": None, "kind": "text",
                   **asdict(s)} for name, s in done.items()}  # fmt: skip
    best = min(rows, key=lambda name: rows[name]["value"])
    run.write_metrics({**rows, "heldout": {**rows[best], "compressor": best}})
    results = {"results": {name: {"bits_per_byte": row["value"]} for name, row in rows.items()}}
    write_atomic(run.out / "results.json", canonical_json(results))
    run.log(f"best: {best}, {rows[best]['value']:.4f} bits per byte of {rows[best]['heldout_bytes']} held-out bytes")


def measure(make: Callable[[], Compressor], train: Iterator[bytes], heldout: Iterator[bytes], text_bytes: int) -> Sizes:
    """Both sizes in one pass.

    Neither coder's state can be copied, but a process can: after the training text a fork of this process ends
    its copy of the stream and reports that size, while this one reads on. Both sizes are those of two full runs.

    Args:
        text_bytes: what the held-out text counts, without separators.
    """
    compressor = make()
    size = read = 0
    for data in train:
        size += len(compressor.compress(data))
        read += len(data)
    ended = size + _flushed_in_a_fork(compressor)
    for data in heldout:
        size += len(compressor.compress(data))
    return Sizes(ended, size + len(compressor.flush()), read, text_bytes)


def _flushed_in_a_fork(compressor: Compressor) -> int:
    """How many bytes `compressor` would still write if it ended here; it stays as it is."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(send, struct.pack("<Q", len(compressor.flush())))
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read(8)
    os.waitpid(child, 0)
    if len(answer) != 8:
        raise UserError("a compressor's copy ended without an answer, probably for want of memory; lower memory_mb")
    return struct.unpack("<Q", answer)[0]


def _maker(what: tuple, total_bytes: int) -> Callable[[], Compressor]:
    if what[0] == "ppmd":
        return lambda: PPMd(*what[1:])
    dictionary = max(1 << 20, min(total_bytes, 1536 << 20))  # the whole text within reach, up to xz's own limit
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": dictionary}]
    return lambda: lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters)


def _work(what: tuple, corpus: Path, train_bytes: int | None, result: Path) -> None:
    """One compressor's whole work, in its own process, which the kernel ends with the stage's."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG
    train_size, _ = _text_size(stream(corpus, "train"), train_bytes)
    heldout_size, heldout_documents = _text_size(stream(corpus, "heldout"), None)
    make = _maker(what, train_size + heldout_size + heldout_documents)
    train, heldout = _pieces(stream(corpus, "train"), train_bytes), _pieces(stream(corpus, "heldout"), None)
    write_atomic(result, canonical_json(asdict(measure(make, train, heldout, heldout_size))))


def _read(result: Path) -> Sizes:
    return Sizes(**json.loads(result.read_text()))


def _pieces(documents: Iterator[Document], limit: int | None) -> Iterator[bytes]:
    """Whole documents, each ended by the separator, up to `limit` bytes of text."""
    total = 0
    for document in documents:
        text = document.text.encode()
        total += len(text)
        if limit is not None and total > limit:
            return
        yield text + SEPARATOR


def _text_size(documents: Iterator[Document], limit: int | None) -> tuple[int, int]:
    sizes = [len(piece) - len(SEPARATOR) for piece in _pieces(documents, limit)]
    return sum(sizes), len(sizes)
