"""The first pass over the text: what each document is compared by, block by block, as sorted runs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from w3lib.url import canonicalize_url

from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import DedupConfig
from ..documents import Block, blocks, part_name, work_of, write_part
from ..words import WordStream, mix64, word_stream
from .minhash import band_keys, shingles, signatures
from .runs import write_run

_TRACKING = re.compile(r"(?<=[?&])(utm_[a-z]+|fbclid|gclid)=[^&]*&?", re.IGNORECASE)


@dataclass(frozen=True)
class NumberedBlock:
    """A block of documents and where its documents stand in the order of the whole corpus."""

    block: Block
    number: int
    """Of the block, the earlier corpus first."""
    first: int
    """Number of its first document."""
    rows: int
    earlier: bool
    """Of a corpus that is done: its documents are compared with, and neither removed nor written."""


def number_blocks(run: Run) -> list[NumberedBlock]:
    """The blocks of the earlier corpus, if there is one, then those of the documents."""
    found: list[NumberedBlock] = []
    first = 0
    for earlier, name in ((True, "earlier"), (False, "documents")):
        if name in run.inputs:
            for block in blocks(run.inputs[name]):
                rows = block.rows()
                found.append(NumberedBlock(block, len(found), first, rows, earlier))
                first += rows
    return found


def sign(run: Run, shards: list[NumberedBlock], config: DedupConfig) -> Path:
    """Hash every document; returns the folder of facts and runs."""
    folder = run.work / "signed"
    fan_out(run, "sign", partial(sign_block, folder, config), shards, config)
    return folder


def sign_block(folder: Path, config: DedupConfig, shard: NumberedBlock) -> None:
    """Write one block's facts (a row a document) and its runs: exact hashes, addresses, LSH bands."""
    columns = ["id", "source", "category", "url", "meta", "text", *_ranking_column(config)]
    documents = shard.block.read(list(dict.fromkeys(columns)))
    texts = documents["text"]
    stream = word_stream(texts)
    scope = scope_hashes(documents, config.scope)
    exact = exact_hashes(texts, stream)
    rows = np.arange(len(documents), dtype=np.uint32)
    low = np.array([int.from_bytes(digest[:8], "little") for digest in exact], np.uint64)
    write_run(folder / "exact", shard.number, (low ^ scope)[None], rows)
    if config.urls:
        addressed = rows[(documents["url"] != "").to_numpy()]
        urls = [xxhash.xxh3_64_intdigest(canonical_url(u)) for u in documents["url"].gather(addressed)]
        write_run(folder / "urls", shard.number, (np.array(urls, np.uint64) ^ scope[addressed])[None], addressed)
    hashes, starts = shingles(stream, config.shingle_words)
    signature = signatures(hashes, starts, config.bands * config.rows, config.seed)
    keys = band_keys(signature, config.bands, config.rows)
    wordy = np.diff(starts) > 0
    write_run(folder / "bands", shard.number, (keys[wordy] ^ scope[wordy, None]).T, rows[wordy])
    write_part(
        folder / part_name(shard.number),
        documents.select(
            "id", "source",
            rank=_ranking(documents, config), exact=pl.Series(exact, dtype=pl.Binary),
            scope=pl.Series(scope), work=pl.Series([work_of(i) for i in documents["id"]], dtype=pl.String),
        ),
    )  # fmt: skip


def exact_hashes(texts: pl.Series, stream: WordStream) -> list[bytes]:
    """128-bit hash of each text's words: copies that differ in case, punctuation or white space are the same.

    A text without words is hashed as it is.
    """
    bounds = stream.starts.tolist()
    return [
        xxhash.xxh3_128_digest(stream.hashes[a:b].tobytes() if b > a else texts[i])
        for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]


def scope_hashes(documents: pl.DataFrame, scope: str) -> np.ndarray:
    """What keeps documents of different scopes apart when it is folded into their hashes: (documents,) uint64."""
    if scope == "corpus":
        return np.zeros(len(documents), np.uint64)
    if scope.startswith("meta."):
        field = scope.removeprefix("meta.")
        values = [str(json.loads(meta or "{}").get(field, "")) for meta in documents["meta"]]
    else:
        values = documents[scope].to_list()
    return mix64(np.array([xxhash.xxh3_64_intdigest(value) for value in values], np.uint64))


def canonical_url(url: str) -> str:
    """An address without what does not change the page: scheme, `www.`, fragment, tracking parameters, order."""
    plain = canonicalize_url(_TRACKING.sub("", url)).partition("://")[2] or url
    return plain.removeprefix("www.").rstrip("/?&")


def _ranking_column(config: DedupConfig) -> list[str]:
    return [] if config.keep in ("longest", "first") else [config.keep.removeprefix("-")]


def _ranking(documents: pl.DataFrame, config: DedupConfig) -> pl.Expr:
    """What a cluster's survivor has least of."""
    if config.keep == "first":
        return pl.lit(0.0)
    if config.keep == "longest":
        return -pl.col("text").str.len_bytes().cast(pl.Float64)
    column = pl.col(config.keep.removeprefix("-")).cast(pl.Float64)
    return (column if config.keep.startswith("-") else -column).fill_null(float("inf"))
