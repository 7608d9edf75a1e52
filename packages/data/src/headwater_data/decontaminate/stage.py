"""decontaminate: take the benchmark items that eval scores out of the training text.

    items -> n-grams; pass 1, a block a worker: which n-grams of which items stand in which documents
    n-grams that stand in many documents are common phrases and drop out, unless nearly the whole item stands there
    a method's score decides which document holds which item
    pass 2: spans cut or documents removed, overlap.jsonl item by item

Words are lower-case without punctuation. The methods and their papers stand in config/decontaminate.py; the cut is
GPT-3's (Brown et al. 2020, arXiv 2005.14165, appendix C): the match goes with 200 characters on either side, pieces
under 200 characters go, a document cut more than 10 times goes. What is reported is containment, the share of an item's
n-grams that one document holds: a short item in a long document has a Jaccard similarity near 0 and a containment of 1.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from .._contracts.fanout import fan_out
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from ..config import DecontaminateConfig
from ..documents import Block, blocks, count_folder, count_rejects, funnel, publish_parts, write_part, write_split
from .excise import excise_block
from .items import Items, load_items
from .search import common_ngrams, evidence, leaks, pair_scores, search_block

LISTED = 20  # ids an item in overlap.jsonl; their number is given in full


def decontaminate(run: Run) -> None:
    """The stage: documents, items -> documents that hold no item; overlap.jsonl."""
    config: DecontaminateConfig = run.config
    shards = blocks(run.inputs["documents"])
    items = load_items(run.inputs["items"], config)
    lookup = run.work / "items.npz"
    np.savez(lookup, allow_pickle=False, **{str(n): grams for n, grams in items.by_length().items()})
    found = run.work / "hits"
    fan_out(run, "search", partial(search_block, found, lookup), shards, config)
    hits = evidence(items, found)
    common = common_ngrams(found, config.max_ngram_documents)
    hits = drop_common(items, hits, common, config)
    scores = pair_scores(items, hits, config)
    spans = leaks(run, items, hits, scores, shards, config)
    overlap = overlap_table(scores, spans)
    _write_overlap(run.out / "overlap.jsonl", overlap, items, config)

    write_part(run.work / "spans.parquet", spans)
    parts = run.work / "parts"
    fan_out(run, "cut", partial(cut_block, parts, run.work / "spans.parquet", config), shards, config, light=True)
    publish_parts(parts, run.out)
    rejects = count_rejects(parts)
    metrics = funnel(count_folder(run.inputs["documents"]), count_folder(parts), [rejects])
    metrics["documents_removed"] = int((rejects["rule"] == "holds_item").sum())
    metrics["documents_cut"] = spans["document"].n_unique() - metrics["documents_removed"]
    metrics["method"], metrics["common_ngrams"] = config.method, len(common)
    metrics["tasks"] = _by_task(items, overlap)
    run.write_metrics(metrics)
    run.log(
        f"{overlap.filter('contaminated')['item'].n_unique()} of {len(items.table)} items found in "
        f"{spans['document'].n_unique()} documents; {(metrics['bytes_in'] - metrics['bytes_out']) / 1e3:.1f} kB removed"
    )


def drop_common(items: Items, hits: pl.DataFrame, common: pl.DataFrame, config: DecontaminateConfig) -> pl.DataFrame:
    """Hits without common n-grams, but for documents that hold nearly the whole of an item of n words or more."""
    pairs = pair_scores(items, hits, config).join(items.table.select("item", "words"), on="item")
    whole = pairs.filter((pl.col("containment") >= config.whole_item) & (pl.col("words") >= config.n))
    rare = hits.join(common, on=["n", "gram"], how="anti", maintain_order="left")
    spared = hits.join(common, on=["n", "gram"], how="semi", maintain_order="left")
    return pl.concat([rare, spared.join(whole, on=["item", "document"], how="semi", maintain_order="left")])


def overlap_table(scores: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """One row an item and document that share an n-gram: item, document, containment, score, contaminated."""
    held = spans.group_by("item", "document").agg(pl.col("score").max().alias("found"))
    return (
        scores.drop("shared", "ngrams")
        .join(held, on=["item", "document"], how="left")
        .with_columns(score=pl.coalesce("found", "score"), contaminated=pl.col("found").is_not_null())
        .drop("found")
        .sort(["item", "contaminated", "score", "document"], descending=[False, True, True, False])
    )


def _write_overlap(path: Path, overlap: pl.DataFrame, items: Items, config: DecontaminateConfig) -> None:
    """overlap.jsonl: an item that was found a line, the documents that held most of it first."""
    held = overlap.filter("contaminated") if config.method == "fuzzy" else overlap
    grouped = held.group_by("item", maintain_order=True).agg(
        pl.col("containment", "score").max(), pl.col("contaminated").any(), pl.len().alias("documents"),
        each=pl.struct(id="document", containment=pl.col("containment").round(4), leak="contaminated").head(LISTED),
    )  # fmt: skip
    lines = []
    for row in grouped.join(items.table, on="item", maintain_order="left").iter_rows(named=True):
        line = {
            "task": row["task"], "id": row["id"], "words": row["words"], "method": config.method,
            "contaminated": row["contaminated"], "score": round(row["score"], 4),
            "containment": round(row["containment"], 4), "documents": row["documents"], "held_by": row["each"],
        }  # fmt: skip
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))


def cut_block(parts: Path, spans: Path, config: DecontaminateConfig, block: Block) -> None:
    """Write one block without its leaks, and what was taken out."""
    here = pl.scan_parquet(spans).filter(pl.col("block") == block.number).collect()
    write_split(parts, block.number, *excise_block(block.read(), here, config))


def _by_task(items: Items, overlap: pl.DataFrame) -> dict[str, dict[str, int]]:
    found = overlap.group_by("item").agg(pl.col("containment").max(), pl.col("contaminated").any())
    rows = items.table.join(found, on="item", how="left").group_by("task").agg(
        pl.len().alias("items"),
        (pl.col("n") == 0).sum().alias("too_short"),
        pl.col("contaminated").fill_null(False).sum().alias("found"),
        (pl.col("containment") >= 0.8).sum().alias("contained"),  # 80%: the Llama 2 report's line for "dirty"
    )  # fmt: skip
    return {row.pop("task"): row for row in rows.sort("task").iter_rows(named=True)}
