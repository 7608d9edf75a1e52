"""Token datasets: look into one, join two, take a part; all of it on the token files, without encoding again."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headwater_tokenizer._contracts import manifest
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.corpus import SPLITS
from headwater_tokenizer.encode import write_dataset
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.token_files import Part, documents_path, read_documents


def check_tokenizer(tokens: Path, tokenizer: Path) -> None:
    """Refuse a tokenizer that a token dataset was not made with.

    Raises:
        UserError: the manifests do not agree.
    """
    made_with = manifest.read(tokens, ("tokens",)).inputs.get("tokenizer")
    if made_with is not None and made_with != manifest.manifest_hash(tokenizer):
        raise UserError(
            f"{tokenizer}: not the tokenizer that {tokens} was made with (manifest {made_with[:12]}); name that one"
        )


def merge(run: Run) -> None:
    """Stage `merge`: the documents of `first`, then those of `second`, split by split.

    Raises:
        UserError: the datasets were made with two tokenizers.
    """
    folders = [run.inputs["first"], run.inputs["second"]]
    for folder in folders:
        check_tokenizer(folder, run.inputs["tokenizer"])
    write_dataset(run, folders[0], facts_of(folders[0]), {split: _joined(folders, split) for split in SPLITS})


def _joined(folders: list[Path], split: str) -> Iterator[Part]:
    for folder in folders:
        lines = (folder / "rejects.jsonl").read_text().splitlines()
        rejects = [reject for reject in map(json.loads, lines) if reject["split"] == split]
        for ids, documents in parts(folder, split):
            yield ids, documents, rejects
            rejects = []


def subset(run: Run) -> None:
    """Stage `subset`: a random part of the train split's documents in their order, and all held-out ones.

    Raises:
        UserError: no document is left, or a source or language is not there.
    """
    folder, config = run.inputs["tokens"], run.config
    check_tokenizer(folder, run.inputs["tokenizer"])
    table = pl.read_parquet(documents_path(folder, "train"), columns=["source", "lang", "tokens"])
    wanted = pl.lit(True)
    for column, names in (("source", config.sources), ("lang", config.languages)):
        there = set(table[column].to_list())
        if missing := sorted(set(names) - there):
            raise UserError(f"{folder}: no document of {column} {missing[0]}; it has {', '.join(sorted(there - {''}))}")
        wanted &= pl.col(column).is_in(names) if names else pl.lit(True)
    rows = table.with_row_index("row").filter(wanted)
    keep = np.zeros(len(table), bool)
    keep[drawn(rows["row"].to_numpy(), rows["tokens"].to_numpy(), config.tokens, config.seed)] = True
    if not keep.any():
        raise UserError(f"{folder}: the first document drawn has more than {config.tokens} tokens; raise tokens")
    write_dataset(
        run, folder, facts_of(folder), {"train": _kept(folder, keep), "heldout": _joined([folder], "heldout")}
    )


def _kept(folder: Path, keep: np.ndarray) -> Iterator[Part]:
    at = 0
    for ids, documents in parts(folder, "train"):
        here = keep[at : at + len(documents)]
        at += len(documents)
        yield ids[np.repeat(here, documents["tokens"].to_numpy())], documents.filter(pa.array(here)), []


def facts_of(folder: Path) -> dict:
    """What a dataset says of its ids: vocabulary, end_of_document_id, dtype."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: metrics[key] for key in ("vocabulary", "end_of_document_id", "dtype")}


def parts(folder: Path, split: str) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """A split row group by row group of its table: (tokens,) ids and the documents' rows.

    Raises:
        UserError: the table is missing or does not fit the ids.
    """
    ids, starts = read_documents(folder, split)
    path = documents_path(folder, split)
    try:
        table = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as e:
        raise UserError(f"{path}: not readable as Parquet ({e}); encode the corpus again") from None
    if table.metadata.num_rows != len(starts) - 1:
        raise UserError(f"{path}: {table.metadata.num_rows} documents, but the index says {len(starts) - 1}; "
                        "encode the corpus again")  # fmt: skip
    at = 0
    for group in range(table.num_row_groups):
        documents = table.read_row_group(group)
        yield np.asarray(ids[starts[at] : starts[at + len(documents)]]), documents
        at += len(documents)


def drawn(rows: np.ndarray, lengths: np.ndarray, tokens: int | None, seed: int) -> np.ndarray:
    """Rows, ascending, drawn at random until the next would pass so many tokens; each has `lengths` of them."""
    if tokens is None:
        return rows
    keys = [hashlib.blake2b(f"{seed}\0{row}".encode(), digest_size=8).digest() for row in rows.tolist()]
    order = np.array(sorted(range(len(rows)), key=keys.__getitem__), np.int64)
    taken = int(np.searchsorted(np.cumsum(lengths[order]), tokens, side="right"))
    return np.sort(rows[order[:taken]])


def peek(args: argparse.Namespace) -> None:
    """Print documents of a token dataset.

    Raises:
        UserError: no such document, or another tokenizer.
    """
    check_tokenizer(args.tokens, args.tokenizer)
    ids, starts = read_documents(args.tokens, args.split)
    last = len(starts) - 2
    if not 0 <= args.document <= last:
        raise UserError(f"{args.tokens}: no document {args.document} in {args.split}; it has 0 to {last}")
    for line in _shown(ids, starts, Encoder(args.tokenizer), args):
        print(line)


def _shown(ids: np.ndarray, starts: np.ndarray, encoder: Encoder, args: argparse.Namespace) -> Iterator[str]:
    rows = range(args.document, min(args.document + args.count, len(starts) - 1))
    table = pl.scan_parquet(documents_path(args.tokens, args.split)).slice(rows.start, len(rows)).collect()
    for row, known in zip(rows, table.rows(named=True), strict=True):
        document = ids[starts[row] : starts[row + 1]]
        yield f"== {args.split} document {row}: {known['id']} of {known['source']}, {len(document)} tokens"
        part = document[: args.tokens_shown]
        yield "|".join(encoder.decode(part[i : i + 1]) for i in range(len(part))) if args.cut else encoder.decode(part)
        if len(part) < len(document):
            yield f"... {len(document) - len(part)} more"
