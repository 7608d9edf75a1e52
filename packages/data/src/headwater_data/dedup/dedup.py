"""dedup: exact and near duplicates across the whole corpus.

    pass 1, a block a worker: normalised text -> 128-bit hash, MinHash bands
    exact groups -> one member stands for each -> candidate pairs by band -> true Jaccard -> connected components
    pass 2, block by block: survivors and rejects

A candidate pair counts if the true Jaccard similarity of its shingles reaches `verify_jaccard`; with 0 the bands alone
decide, as in FineWeb's released run.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from .._contracts.stage import Run
from ..config import DedupConfig
from ..documents import Block, blocks, funnel, part_name, rejects_frame, write_part, write_split
from ..fanout import fan_out
from ..words import WordStream, word_stream
from .minhash import band_keys, candidate_pairs, clusters, jaccard, shingles, signatures


def dedup(run: Run) -> None:
    """The stage: documents -> documents without duplicates; rejects name the document that was kept."""
    config: DedupConfig = run.config
    folder = run.inputs["documents"]
    shards = blocks(folder)
    marks = run.work / "signatures"
    fan_out(run, "signatures", partial(sign_block, marks, config), shards, config)
    table = pl.concat([pl.read_parquet(marks / part_name(b.number)) for b in shards])
    exact, near, similarity, pairs = _find(run, table, shards, config)
    run.log(f"{int((exact >= 0).sum())} exact and {int((near >= 0).sum())} near duplicates, {pairs} candidate pairs")

    ids = table["id"].to_list()
    kept_id = np.where(exact >= 0, exact, near)
    table = table.select("id", "source", "bytes").with_columns(
        rule=pl.Series([_rule(e, n) for e, n in zip(exact.tolist(), near.tolist(), strict=True)], dtype=pl.String),
        value=pl.Series(similarity, dtype=pl.Float64),
        kept=pl.Series([ids[k] if k >= 0 else None for k in kept_id.tolist()], dtype=pl.String),
    )
    sizes = table.filter(pl.col("kept").is_not_null()).group_by("kept").len()
    start = 0
    for block in shards:
        documents = block.read()
        rows = table.slice(start, len(documents))
        start += len(documents)
        _write_block(run, block, documents, rows, sizes, config)
    kept = table.filter(pl.col("rule").is_null())
    metrics = funnel(table, kept, [table.filter(pl.col("rule").is_not_null())])
    metrics["candidate_pairs"] = pairs
    metrics["clusters"] = len(sizes)
    metrics["largest_cluster"] = int((sizes["len"].max() or 0) + 1) if len(sizes) else 0  # type: ignore[operator]
    run.write_metrics(metrics)


def sign_block(marks: Path, config: DedupConfig, block: Block) -> None:
    """Hash one block's documents: exact text hash and band keys."""
    documents = block.read(["id", "source", "text"])
    texts = documents["text"]
    stream = word_stream(texts)
    hashes, starts = shingles(stream, config.shingle_words)
    signature = signatures(hashes, starts, config.bands * config.rows, config.seed)
    keys = band_keys(signature, config.bands, config.rows)
    write_part(
        marks / part_name(block.number),
        documents.select("id", "source", bytes=pl.col("text").str.len_bytes()).with_columns(
            exact=pl.Series(exact_hashes(texts, stream), dtype=pl.Binary),
            shingles=pl.Series(np.diff(starts)),
            **{f"band_{i:02d}": pl.Series(keys[:, i]) for i in range(config.bands)},
        ),
    )


def exact_hashes(texts: pl.Series, stream: WordStream) -> list[bytes]:
    """128-bit hash of each text's words: copies that differ in case, punctuation or white space are the same.

    A text without words is hashed as it is.
    """
    bounds = stream.starts.tolist()
    return [
        xxhash.xxh3_128_digest(stream.hashes[a:b].tobytes() if b > a else texts[i])
        for i, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]


def _find(
    run: Run, table: pl.DataFrame, shards: list[Block], config: DedupConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(exact, near, similarity, candidate pairs).

    Returns:
        exact, near: (documents,) int64, index of the document kept instead, -1 for none; similarity: (documents,)
        float64, true Jaccard with the one kept, NaN where none is.
    """
    count = len(table)
    rank = survival_rank(table["source"].to_list(), table["bytes"].to_numpy(), config)
    exact = np.full(count, -1, np.int64)
    groups = table.select("exact").with_row_index("i").group_by("exact", maintain_order=True).agg("i")
    for (members,) in groups.filter(pl.col("i").list.len() > 1).select("i").iter_rows():
        best = min(members, key=rank.__getitem__)
        exact[[m for m in members if m != best]] = best
    alone = exact < 0
    keys = table.select(pl.col("^band_.*$")).to_numpy()
    pairs = candidate_pairs(keys, alone & (table["shingles"].to_numpy() > 0))
    sets = _shingle_sets(shards, np.unique(pairs), config) if len(pairs) else {}
    if config.verify_jaccard > 0:
        true = np.array([jaccard(sets[a], sets[b]) >= config.verify_jaccard for a, b in pairs.tolist()], bool)
        confirmed = pairs[true] if len(pairs) else pairs
    else:
        confirmed = pairs
    labels = clusters(count, confirmed)
    best_of: dict[int, int] = {}
    for i in np.unique(confirmed).tolist():
        label = int(labels[i])
        best_of[label] = i if label not in best_of else min(best_of[label], i, key=rank.__getitem__)
    near = np.full(count, -1, np.int64)
    similarity = np.where(exact >= 0, 1.0, np.nan)
    for i in np.unique(confirmed).tolist():
        best = best_of[int(labels[i])]
        if i != best:
            near[i] = best
            similarity[i] = jaccard(sets[i], sets[best])
    for i in np.flatnonzero(exact >= 0).tolist():  # a copy of a near duplicate: name the one that is really kept
        if near[exact[i]] >= 0:
            exact[i] = near[exact[i]]
    return exact, near, similarity, len(pairs)


def survival_rank(sources: list[str], sizes: np.ndarray, config: DedupConfig) -> list[tuple]:
    """Sort keys: of a cluster the document with the smallest key survives."""
    preferred = {name: i for i, name in enumerate(config.prefer)}
    last = len(preferred)
    longest = config.keep == "longest"
    return [
        (preferred.get(source, last), -int(size) if longest else 0, i)
        for i, (source, size) in enumerate(zip(sources, sizes, strict=True))
    ]


def _shingle_sets(shards: list[Block], wanted: np.ndarray, config: DedupConfig) -> dict[int, np.ndarray]:
    """Distinct shingles, sorted, of the documents that any candidate pair names."""
    sets: dict[int, np.ndarray] = {}
    start = 0
    for block in shards:
        texts = block.read(["text"])["text"]
        here = wanted[(wanted >= start) & (wanted < start + len(texts))]
        if len(here):
            stream = word_stream(texts.gather(here - start).to_list())
            hashes, starts = shingles(stream, config.shingle_words)
            for k, i in enumerate(here.tolist()):
                sets[i] = np.unique(hashes[starts[k] : starts[k + 1]])
        start += len(texts)
    return sets


def _rule(exact: int, near: int) -> str | None:
    return "exact_duplicate" if exact >= 0 else "near_duplicate" if near >= 0 else None


def _write_block(
    run: Run, block: Block, documents: pl.DataFrame, rows: pl.DataFrame, sizes: pl.DataFrame, config: DedupConfig
) -> None:
    """Survivors get the column `copies`: how many documents they stand for beside themselves."""
    joined = documents.with_columns(rows["rule"], rows["value"], rows["kept"])
    kept = (
        documents.filter(rows["rule"].is_null())
        .join(sizes.rename({"kept": "id", "len": "copies"}), on="id", how="left", maintain_order="left")
        .with_columns(pl.col("copies").fill_null(0).cast(pl.Int64))
    )
    removed = joined.filter(pl.col("rule").is_not_null()).with_columns(
        pl.struct("meta", "kept").map_elements(_with_kept, return_dtype=pl.String).alias("meta")
    )
    threshold = pl.when(pl.col("rule") == "near_duplicate").then(pl.lit(config.verify_jaccard)).otherwise(1.0)
    write_split(
        run.out, block.number, kept, rejects_frame(removed, "dedup", pl.col("rule"), pl.col("value"), threshold)
    )


def _with_kept(row: dict) -> str:
    return json.dumps({**json.loads(row["meta"] or "{}"), "kept": row["kept"]}, ensure_ascii=False, sort_keys=True)
