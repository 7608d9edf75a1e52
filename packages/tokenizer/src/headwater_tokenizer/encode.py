"""Corpus to token dataset: every row group is one piece of work, encoded once, then all are joined in order.

A finished piece stays in the work folder as NAME.bin, NAME.npy (ids a document) and, written last, NAME.json
(counts); after a kill only unfinished pieces are encoded again. Pieces are joined in the corpus's order, so
the number of processes does not show in the result.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.manifest import canonical_json, fsync, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.corpus import SPLITS, read_group, row_groups, shards
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.measure import Counts, count_sources
from headwater_tokenizer.megatron_format import write_index
from headwater_tokenizer.special import END_OF_DOCUMENT


@dataclass(frozen=True)
class Piece:
    """One row group of one shard."""

    split: str
    shard: Path
    number: int
    """The shard's place in its split, from 0."""
    group: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}-{self.group:05d}"


def encode(run: Run) -> None:
    """Stage `encode`: corpus, tokenizer -> train and heldout .bin/.idx, rejects.jsonl, metrics.json."""
    encoder = Encoder(run.inputs["tokenizer"])
    end = encoder.id_of(END_OF_DOCUMENT)
    pieces = [piece for split in SPLITS for piece in _pieces(run.inputs["corpus"], split)]
    if not encoder.compare_engines(_first_texts(pieces)):
        run.log("the compiled loops do not know this tokenizer: encoding with tokenizers, some 20 times slower")
    run.log(f"{len(pieces)} row groups, {encoder.vocab_size} ids as {encoder.dtype.name}")

    work = run.work / "pieces"
    work.mkdir(exist_ok=True)
    waiting = [piece for piece in pieces if not (work / f"{piece.name}.json").exists()]
    if len(waiting) < len(pieces):
        run.log(f"{len(pieces) - len(waiting)} row groups were encoded before: going on with the others")
    for done, name in enumerate(_encode_all(waiting, encoder, end, work, run), start=1):
        run.progress(f"{done} of {len(waiting)} row groups encoded, {name} last")

    metrics: dict = {"vocabulary": encoder.vocab_size, "end_of_document_id": end, "dtype": encoder.dtype.name}
    rejects = []
    for split in SPLITS:
        metrics[split], rejected = _join([p for p in pieces if p.split == split], work, run.out, encoder.dtype)
        rejects += rejected
        run.log(f"{split}: {metrics[split]['tokens']} tokens, {metrics[split]['bytes_per_token']:.3f} bytes a token")
    lines = (json.dumps(reject, sort_keys=True, ensure_ascii=False) + "\n" for reject in rejects)
    write_atomic(run.out / "rejects.jsonl", "".join(lines))
    run.write_metrics(metrics)


def encode_piece(piece: Piece, encoder: Encoder, end: int, work: Path) -> None:
    """Encode one row group into the work folder."""
    sources: dict[str, Counts] = defaultdict(Counts)
    lengths, rejects = [], []
    binary = work / f"{piece.name}.bin"
    with open(binary, "wb") as f:
        for batch in read_group(piece.shard, piece.group):
            ids, counts = encoder.encode_column(batch.texts, end)
            f.write(ids.astype(encoder.dtype.newbyteorder("<"), copy=False).data)
            lengths.append(counts.astype(np.int32))
            rejects += [{"split": piece.split, "shard": piece.shard.name, **reject} for reject in batch.rejects]
            for source, found in count_sources(batch, counts).items():
                sources[source].add(found)
        f.flush()
        os.fsync(f.fileno())
    np.save(work / f"{piece.name}.npy", np.concatenate(lengths) if lengths else np.zeros(0, np.int32))
    fsync(work / f"{piece.name}.npy")
    totals = {name: asdict(counts) for name, counts in sources.items()}
    write_atomic(work / f"{piece.name}.json", canonical_json({"sources": totals, "rejects": rejects}))


def _first_texts(pieces: list[Piece]) -> list[str]:
    """Of the first batch, to compare the two engines on."""
    for piece in pieces:
        for batch in read_group(piece.shard, piece.group):
            return batch.texts.to_pylist()
    return []


def _pieces(corpus: Path, split: str) -> Iterator[Piece]:
    for number, shard in enumerate(shards(corpus, split)):
        for group in range(row_groups(shard)):
            yield Piece(split, shard, number, group)


def _encode_all(pieces: list[Piece], encoder: Encoder, end: int, work: Path, run: Run) -> Iterator[str]:
    """Encode the pieces, in this process or in several; yields the name of each when it is done."""
    workers = min(run.config.workers or len(os.sched_getaffinity(0)), len(pieces))
    if workers <= 1:
        for piece in pieces:
            encode_piece(piece, encoder, end, work)
            yield piece.name
        return
    # spawn: forking beside the threads of tokenizers and Arrow can deadlock.
    context = multiprocessing.get_context("spawn")
    setup = (run.inputs["tokenizer"], encoder.engine, end, work)
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=setup) as pool:
        futures = {pool.submit(_work, piece): piece for piece in pieces}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future].name
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: tuple[Encoder, int, Path]


def _start_worker(tokenizer: Path, engine: str, end: int, work: Path) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = (Encoder(tokenizer, engine), end, work)


def _end_with_parent() -> None:
    """A worker whose stage was killed by -9 would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(piece: Piece) -> None:
    encode_piece(piece, *_worker)


def _join(pieces: list[Piece], work: Path, out: Path, dtype: np.dtype) -> tuple[dict, list[dict]]:
    """Join a split's pieces into SPLIT.bin and SPLIT.idx; its figures for metrics.json, and its rejects."""
    split = pieces[0].split if pieces else ""
    lengths, rejects = [], []
    sources: dict[str, Counts] = defaultdict(Counts)
    with open(out / f"{split}.bin", "wb") as whole:
        for piece in pieces:
            with open(work / f"{piece.name}.bin", "rb") as part:
                shutil.copyfileobj(part, whole, 1 << 20)
            lengths.append(np.load(work / f"{piece.name}.npy", allow_pickle=False))
            record = json.loads((work / f"{piece.name}.json").read_text())
            rejects += record["rejects"]
            for name, counts in record["sources"].items():
                sources[name].add(Counts(**counts))
    every = np.concatenate(lengths)
    if not len(every):
        raise UserError(f"{pieces[0].shard.parent}: no usable document in it; make the corpus again")
    write_index(out / f"{split}.idx", every, dtype)
    total = Counts()
    for counts in sources.values():
        total.add(counts)
    by_source = {name: sources[name].figures() for name in sorted(sources)}
    figures = {"rejected": len(rejects), "longest_document_tokens": int(every.max()), "by_source": by_source}
    return total.figures() | figures, rejects
