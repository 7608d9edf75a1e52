"""Where the items' n-grams stand in the documents, and which documents hold which items by each method's score."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from rapidfuzz.distance import LCSseq

from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import DecontaminateConfig
from ..documents import Block, part_name, write_part
from ..words import ngram_hashes, word_stream
from .items import Items

LEAKS = {
    "item": pl.Int64, "block": pl.Int64, "row": pl.Int64, "document": pl.String, "word": pl.Int64, "n": pl.Int64,
    "score": pl.Float64,
}  # fmt: skip
SLACK = 0.25
"""fuzzy: a passage may be longer than its item by this share on either side."""
SEEDS = 0.1
"""fuzzy: share of an item's n-grams that a document must hold to be looked at, and two of them at least."""


def search_block(found: Path, lookup: Path, block: Block) -> None:
    """Write where the items' n-grams stand in one block: block, document (id), row, word, n, gram."""
    documents = block.read(["id", "text"])
    stream = word_stream(documents["text"].to_list())
    parts = [pl.DataFrame(schema={"row": pl.Int64, "word": pl.Int64, "n": pl.Int64, "gram": pl.UInt64})]
    with np.load(lookup, allow_pickle=False) as lengths:
        for name in lengths.files:
            wanted, n = lengths[name], int(name)
            grams, positions = ngram_hashes(stream, n)
            at = np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)
            hit = wanted[at] == grams
            row = np.searchsorted(stream.starts, positions[hit], side="right") - 1
            word = positions[hit] - stream.starts[row]
            parts.append(
                pl.DataFrame({"row": row, "word": word, "n": np.full(len(row), n, np.int64), "gram": grams[hit]})
            )
    hits = pl.concat(parts)
    rows = hits["row"]
    write_part(
        found / part_name(block.number),
        hits.with_columns(block=pl.lit(block.number, pl.Int64), document=documents["id"].gather(rows)),
    )


def evidence(items: Items, found: Path) -> pl.DataFrame:
    """Every hit with the item whose n-gram it is: item, n, gram, at, block, row, document, word."""
    hits = pl.scan_parquet(found / "part-*.parquet")
    return items.grams.lazy().join(hits, on=["n", "gram"]).collect(engine="streaming")


def common_ngrams(found: Path, most: int) -> pl.DataFrame:
    """n, gram: those that stand in more than `most` documents."""
    pairs = pl.scan_parquet(found / "part-*.parquet").select("document", "n", "gram").unique()
    counted = pairs.group_by("n", "gram").len("documents").filter(pl.col("documents") > most)
    return counted.select("n", "gram").collect(engine="streaming")


def leaks(
    run: Run, items: Items, hits: pl.DataFrame, scores: pl.DataFrame, blocks: list[Block], config: DecontaminateConfig
) -> pl.DataFrame:
    """Which documents hold which items, and where: LEAKS, a row a span.

    Args:
        hits: as `evidence` gives, without common n-grams.
        scores: as `pair_scores` gives for them.
    """
    if config.method == "fuzzy":
        return _fuzzy_leaks(run, items, hits, scores, blocks, config)
    scored = hits.join(scores, on=["item", "document"])
    whole = pl.col("n") < config.n  # a short item, found whole
    return scored.filter(whole | (pl.col("score") >= config.score) & (pl.col("score") > 0)).select(list(LEAKS))


def pair_scores(items: Items, hits: pl.DataFrame, config: DecontaminateConfig) -> pl.DataFrame:
    """item, document, shared (distinct n-grams of the item that the document holds), ngrams (that the item has),
    containment (shared over ngrams), score (what the method compares)."""
    pairs = hits.group_by("item", "document").agg(pl.col("gram").n_unique().alias("shared"))
    pairs = pairs.join(items.table.select("item", "ngrams", "words"), on="item")
    pairs = pairs.with_columns(containment=pl.col("shared") / pl.col("ngrams"))
    columns = ["item", "document", "shared", "ngrams", "containment"]
    if config.method != "llama":
        return pairs.select(*columns, score="containment")
    covered = (
        hits.select("item", "document", word=pl.int_ranges("at", pl.col("at") + pl.col("n")))
        .explode("word")
        .group_by("item", "document")
        .agg(pl.col("word").n_unique().alias("covered"))
    )
    pairs = pairs.join(covered, on=["item", "document"])
    return pairs.select(*columns, score=pl.col("covered") / pl.col("words"))


def _fuzzy_leaks(
    run: Run, items: Items, hits: pl.DataFrame, scores: pl.DataFrame, blocks: list[Block], config: DecontaminateConfig
) -> pl.DataFrame:
    enough = (pl.col("shared") >= 2) & (pl.col("containment") >= SEEDS) | (pl.col("ngrams") == 1)
    near = hits.join(scores.filter(enough), on=["item", "document"], how="semi")
    folder = run.work / "aligned"
    write_part(folder / "seeds.parquet", near.sort("block", "row", "item", "word"))
    np.savez(folder / "items.npz", allow_pickle=False, words=items.words.hashes, starts=items.words.starts)
    here = [b for b in blocks if b.number in set(near["block"].to_list())]
    fan_out(run, "align", partial(align_block, folder, config), here, config, light=True)
    found = [pl.read_parquet(folder / part_name(b.number)) for b in here]
    return pl.concat([pl.DataFrame(schema=LEAKS), *found])


def align_block(folder: Path, config: DecontaminateConfig, block: Block) -> None:
    """Compare the items with the passages of one block where their n-grams stand; write its LEAKS."""
    seeds = pl.read_parquet(folder / "seeds.parquet").filter(pl.col("block") == block.number)
    with np.load(folder / "items.npz", allow_pickle=False) as file:
        words, starts = file["words"], file["starts"]
    wanted = seeds["row"].unique().sort()
    stream = word_stream(block.read(["text"])["text"].gather(wanted).to_list())
    place = {row: i for i, row in enumerate(wanted.to_list())}
    rows = []
    for (item, row, document), group in seeds.group_by("item", "row", "document", maintain_order=True):
        own = words[starts[item] : starts[item + 1]].tolist()  # type: ignore[index,operator]
        i = place[row]
        text = stream.hashes[stream.starts[i] : stream.starts[i + 1]]
        slack = max(round(len(own) * SLACK), 2)
        best, tried = (0.0, 0, 0), -slack - 1
        for first in sorted({word - at for word, at in group.select("word", "at").iter_rows()}):
            if first - tried <= slack // 2:  # nearly the same passage
                continue
            tried = first
            start = max(first - slack, 0)
            best = max(best, _align(own, text[start : first + len(own) + slack].tolist(), start))
        if best[0] >= config.score:
            rows.append((item, block.number, row, document, best[1], best[2], best[0]))
    write_part(folder / part_name(block.number), pl.DataFrame(rows, schema=LEAKS, orient="row"))


def _align(item: list[int], passage: list[int], start: int) -> tuple[float, int, int]:
    """Share of the item's words that the passage holds in order, and the span of those: (share, word, words)."""
    kept = [op for op in LCSseq.opcodes(item, passage) if op.tag == "equal"]
    if not kept:
        return 0.0, 0, 0
    share = sum(op.src_end - op.src_start for op in kept) / len(item)
    return share, start + kept[0].dest_start, kept[-1].dest_end - kept[0].dest_start
