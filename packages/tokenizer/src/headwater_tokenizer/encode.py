"""Corpus to token dataset: every row group is one piece of work, encoded once, then all are joined in order.

A finished piece stays in the work folder as NAME.bin, NAME.npy (of each document its ids and the number of its source)
and, written last, NAME.json (names of sources, counts); after a kill only unfinished pieces are encoded again. Pieces
are joined in the corpus's order, so the number of processes does not show in the result.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import re
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
from headwater_tokenizer.measure import Counts, count_groups, summed
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
    """Stage `encode`: corpus, tokenizer -> train and heldout .bin/.idx, tokens.json, rejects.jsonl, metrics.json."""
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

    facts = {"vocabulary": encoder.vocab_size, "end_of_document_id": end, "dtype": encoder.dtype.name}
    metrics: dict = dict(facts)
    detail: dict = dict(facts)
    rejects = []
    for split in SPLITS:
        of_split = [p for p in pieces if p.split == split]
        metrics[split], detail[split], rejected = _join(of_split, work, run.out, encoder.dtype, run)
        rejects += rejected
        run.log(f"{split}: {metrics[split]['tokens']} tokens, {metrics[split]['bytes_per_token']:.3f} bytes a token")
    lines = (json.dumps(reject, sort_keys=True, ensure_ascii=False) + "\n" for reject in rejects)
    write_atomic(run.out / "rejects.jsonl", "".join(lines))
    write_atomic(run.out / "tokens.json", canonical_json(detail))
    run.write_metrics(metrics)


def encode_piece(piece: Piece, encoder: Encoder, end: int, work: Path) -> None:
    """Encode one row group into the work folder."""
    groups: dict[tuple[str, str], Counts] = defaultdict(Counts)
    rows, rejects = [np.zeros((0, 2), np.int32)], []
    names: dict[str, int] = {}
    binary = work / f"{piece.name}.bin"
    with open(binary, "wb") as f:
        for batch in read_group(piece.shard, piece.group):
            ids, counts = encoder.encode_column(batch.texts, end)
            f.write(ids.astype(encoder.dtype.newbyteorder("<"), copy=False).data)
            numbers = [names.setdefault(source, len(names)) for source in batch.sources]
            rows.append(np.stack([counts, np.array(numbers, np.int64)], axis=1).astype(np.int32))
            rejects += [{"split": piece.split, "shard": piece.shard.name, **reject} for reject in batch.rejects]
            for group, found in count_groups(batch, counts).items():
                groups[group].add(found)
        f.flush()
        os.fsync(f.fileno())
    np.save(work / f"{piece.name}.npy", np.concatenate(rows))
    fsync(work / f"{piece.name}.npy")
    totals = [[source, lang, asdict(counts)] for (source, lang), counts in sorted(groups.items())]
    record = {"sources": list(names), "groups": totals, "rejects": rejects}
    write_atomic(work / f"{piece.name}.json", canonical_json(record))


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


def _join(pieces: list[Piece], work: Path, out: Path, dtype: np.dtype, run: Run) -> tuple[dict, dict, list[dict]]:
    """Join a split's pieces into SPLIT.bin and SPLIT.idx, and by source where that is asked for.

    Returns:
        The split's figures for metrics.json and for tokens.json, and its rejects.
    """
    split = pieces[0].split if pieces else ""
    rejects: list[dict] = []
    groups: dict[tuple[str, str], Counts] = defaultdict(Counts)
    with contextlib.ExitStack() as files:
        whole = _TokenFile(out / split, dtype, files)
        by_source: dict[str, _TokenFile] = {}
        for piece in pieces:
            record = json.loads((work / f"{piece.name}.json").read_text())
            lengths, numbers = np.load(work / f"{piece.name}.npy", allow_pickle=False).T
            ids = np.fromfile(work / f"{piece.name}.bin", dtype)
            whole.write(ids, lengths)
            if run.config.per_source:
                of = np.repeat(numbers, lengths)
                for number, source in enumerate(record["sources"]):
                    if source not in by_source:
                        by_source[source] = _TokenFile(_source_path(out, split, source, by_source), dtype, files)
                    by_source[source].write(ids[of == number], lengths[numbers == number])
            rejects += record["rejects"]
            for source, lang, counts in record["groups"]:
                groups[source, lang].add(Counts(**counts))
    for file in (whole, *by_source.values()):
        file.write_index()
    if not whole.documents:
        raise UserError(f"{pieces[0].shard.parent}: no usable document in it; make the corpus again")
    sources = summed((source, counts) for (source, _), counts in groups.items())
    languages = summed((lang or "unknown", counts) for (_, lang), counts in groups.items())
    total = Counts()
    for counts in sources.values():
        total.add(counts)
    figures = total.figures() | {"rejected": len(rejects), "longest_document_tokens": whole.longest}
    named = {name: counts.figures() for name, counts in sources.items()}
    detail = figures | {
        "by_source": {name: named[name] | {"files": by_source[name].path.name} if name in by_source else named[name]
                      for name in named},
        "by_language": {name: counts.figures() for name, counts in languages.items()},
        "by_source_and_language": [{"source": source, "language": lang or "unknown", **counts.figures()}
                                   for (source, lang), counts in sorted(groups.items())],
    }  # fmt: skip
    return figures | {"by_source": named}, detail, rejects


class _TokenFile:
    """A .bin that grows, and its .idx at the end."""

    def __init__(self, path: Path, dtype: np.dtype, files: contextlib.ExitStack):
        self.path, self.dtype = path, dtype
        self.file = files.enter_context(path.with_name(f"{path.name}.bin").open("wb"))
        self.lengths: list[np.ndarray] = []

    def write(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self.file.write(ids.data)
        self.lengths.append(lengths)

    def write_index(self) -> None:
        write_index(self.path.with_name(f"{self.path.name}.idx"), np.concatenate(self.lengths), self.dtype)

    @property
    def documents(self) -> int:
        return sum(map(len, self.lengths))

    @property
    def longest(self) -> int:
        return max(int(lengths.max()) for lengths in self.lengths if len(lengths))


def _source_path(out: Path, split: str, source: str, others: dict[str, _TokenFile]) -> Path:
    """SPLIT-SOURCE, what no file name should hold replaced.

    Raises:
        UserError: two sources would share a file.
    """
    path = out / f"{split}-{re.sub(r'[^A-Za-z0-9._-]', '_', source)}"
    if clash := [name for name, file in others.items() if file.path == path]:
        raise UserError(
            f"sources {clash[0]} and {source} would both be {path.name}.bin; rename one, or switch per_source off"
        )
    return path
