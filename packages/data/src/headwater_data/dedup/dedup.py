"""dedup: exact, URL and near duplicates across the whole corpus, and passages that stood before.

    sign, a block a worker: hash of the words, of the address, MinHash bands, as sorted runs on disk
    equal hashes -> exact and URL duplicates; equal bands -> candidate pairs -> true Jaccard -> clusters -> survivors
    (repeated lines or paragraphs, repeated substrings of what is left)
    write, a block a worker: survivors and rejects

A candidate pair counts if the true Jaccard similarity of its shingles reaches `verify_jaccard`; with 0 the bands alone
decide, as in FineWeb's released run. Memory is one range of hashes a worker, and in this process the pairs found.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
import polars as pl

from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import DedupConfig
from ..documents import (
    REJECTS,
    check_number_column,
    count_folder,
    count_rejects,
    funnel,
    publish_parts,
    rejects_frame,
    span_rejects,
    write_part,
    write_split,
)  # fmt: skip
from .candidates import Search, survivors
from .minhash import clusters
from .passages import cut, cut_spans, find_passages
from .sign import NumberedBlock, number_blocks, sign

VERDICTS = {
    "document": pl.Int64, "rule": pl.String, "value": pl.Float64, "kept": pl.String, "cluster": pl.String,
    "copies": pl.Int64,
}  # fmt: skip


def dedup(run: Run) -> None:
    """The stage: documents -> documents without duplicates; rejects name the document that was kept."""
    config: DedupConfig = run.config
    shards = number_blocks(run)
    _check_ranking(shards, config)
    signed = sign(run, shards, config)
    verdicts, found = find_duplicates(run, shards, signed, config)
    gone = verdicts.filter(pl.col("rule").is_not_null())["document"].to_numpy()
    passages = find_passages(run, shards, signed, gone, config)
    write_part(run.work / "verdicts.parquet", verdicts)
    own = [s for s in shards if not s.earlier]
    results = run.work / "parts"
    fan_out(
        run,
        "write",
        partial(write_block, results, run.work / "verdicts.parquet", passages, config),
        own,
        config,
        light=True,
    )
    publish_parts(results, run.out)
    before = count_folder(run.inputs["documents"])
    metrics = {**funnel(before, count_folder(results), [count_rejects(results)]), **found}
    run.write_metrics(metrics)
    removed = ", ".join(f"{rule} {n['documents']}" for rule, n in metrics["by_rule"].items()) or "nothing"
    run.log(f"{removed}; {found['candidate_pairs']} candidate pairs")


def _check_ranking(shards: list[NumberedBlock], config: DedupConfig) -> None:
    if config.keep not in ("longest", "first"):
        columns = shards[-1].block.columns()
        check_number_column("dedup.keep", config.keep.removeprefix("-"), columns, "; or write longest or first")


def find_duplicates(
    run: Run, shards: list[NumberedBlock], signed: Path, config: DedupConfig
) -> tuple[pl.DataFrame, dict]:
    """Which documents go, and why.

    Returns:
        VERDICTS: a row a document that goes, stays for others, or shares a cluster: rule (null: it stays), true
        similarity with the one that stays, ids of that one and of the cluster, copies it stands for; by document.
        And counts for the metrics.
    """
    search = Search(run, shards, signed, config)
    kept: dict[int, int] = {}  # document that goes -> the one that stays
    rule: dict[int, str] = {}

    def remove(name: str, pairs: np.ndarray, may: pl.Expr | None = None) -> None:
        facts = search.facts(np.unique(pairs))
        judged = survivors(pairs, facts, config.prefer).join(facts, on="document")
        if may is not None:
            stays = facts.select(kept="document", kept_work="work", kept_exact="exact")
            judged = judged.join(stays, on="kept").filter(may)
        judged = judged.filter((pl.col("document") != pl.col("kept")) & ~pl.col("earlier"))
        for document, survivor in judged.select("document", "kept").iter_rows():
            kept[document], rule[document] = survivor, name

    pairs = search.equal("exact")
    if len(pairs):
        remove("exact_duplicate", pairs, pl.col("exact") == pl.col("kept_exact"))
    if config.urls:
        pairs = search.equal("urls")
        pairs = pairs[~np.isin(pairs, list(kept)).any(axis=1)] if kept else pairs
        if len(pairs):
            remove("same_url", pairs, pl.col("work") != pl.col("kept_work"))
    pairs = search.candidates(np.array(sorted(kept), np.int64))
    jaccards, edits = search.similarity("verify", pairs)
    confirmed = (jaccards >= config.verify_jaccard) & (edits >= config.verify_edit)
    if confirmed.any():
        remove("near_duplicate", pairs[confirmed])
    for document in kept:  # a copy of a near duplicate: name the one that really stays
        while kept[document] in kept:
            kept[document] = kept[kept[document]]
    removed = np.array([pair for pair in kept.items() if rule[pair[0]] != "exact_duplicate"], np.int64).reshape(-1, 2)
    similarity = dict(zip(removed[:, 0].tolist(), search.similarity("value", removed)[0].tolist(), strict=True))

    linked = pairs[confirmed | (jaccards >= config.cluster_jaccard)]
    verdicts = _verdicts(search, kept, rule, similarity, linked)
    copies = verdicts["copies"]
    return verdicts, {
        "candidate_pairs": len(pairs),
        "clusters": int((copies > 0).sum()),
        "largest_cluster": int((copies.max() or 0) + 1) if len(kept) else 0,  # type: ignore[operator]
    }


def _verdicts(
    search: Search, kept: dict[int, int], rule: dict[int, str], similarity: dict[int, float], linked: np.ndarray
) -> pl.DataFrame:
    edges = np.concatenate([np.array(list(kept.items()), np.int64).reshape(-1, 2), linked])
    members = np.unique(edges)
    ids = search.facts(members)["id"].to_list() if len(members) else []
    labels = clusters(len(members), np.searchsorted(members, edges)).tolist()
    id_of = dict(zip(members.tolist(), ids, strict=True))
    copies: dict[int, int] = {}
    for survivor in kept.values():
        copies[survivor] = copies.get(survivor, 0) + 1
    rows = [
        (
            document, rule.get(document), similarity.get(document, 1.0) if document in rule else None,
            id_of[kept[document]] if document in kept else None, ids[label], copies.get(document, 0),
        )
        for document, label in zip(members.tolist(), labels, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=VERDICTS, orient="row")


def write_block(
    results: Path, verdicts: Path, passages: Path | None, config: DedupConfig, shard: NumberedBlock
) -> None:
    """Write a block's survivors, with `cluster` (id of its first member) and `copies` (documents that each stands for
    beside itself), and its rejects."""
    documents = shard.block.read()
    rows = pl.DataFrame({"document": range(shard.first, shard.first + shard.rows)}, schema={"document": pl.Int64})
    last = shard.first + shard.rows
    here = pl.scan_parquet(verdicts).filter(pl.col("document") >= shard.first, pl.col("document") < last).collect()
    judged = documents.drop("cluster", "copies", strict=False).hstack(
        rows.join(here, on="document", how="left", maintain_order="left").drop("document")
    )
    judged = judged.with_columns(cluster=pl.coalesce("cluster", "id"), copies=pl.col("copies").fill_null(0))
    rejects = [_removed(judged.filter(pl.col("rule").is_not_null()), config)]
    kept = judged.filter(pl.col("rule").is_null()).drop("rule", "value", "kept")
    if passages is not None:
        stays = judged["rule"].is_null().to_list()
        kept, lost = cut_out(kept, list(compress(cut_spans(passages, shard, documents, config), stays)), config)
        rejects.append(lost)
    write_split(results, shard.block.number, kept, pl.concat(rejects))


def _removed(judged: pl.DataFrame, config: DedupConfig) -> pl.DataFrame:
    threshold = pl.when(pl.col("rule") == "near_duplicate").then(pl.lit(config.verify_jaccard)).otherwise(1.0)
    named = judged.with_columns(
        pl.struct("meta", "kept").map_elements(_with_kept, return_dtype=pl.String).alias("meta")
    )
    return rejects_frame(named, "dedup", pl.col("rule"), pl.col("value"), threshold)


def _with_kept(row: dict) -> str:
    return json.dumps({**json.loads(row["meta"] or "{}"), "kept": row["kept"]}, ensure_ascii=False, sort_keys=True)


def cut_out(kept: pl.DataFrame, spans: list[list[tuple]], config: DedupConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut repeated passages out of documents.

    Returns:
        The documents of which enough is left, and the rejects: the cut passages, and documents that went whole.
    """
    texts, whole, cuts = kept["text"].to_list(), [False] * len(kept), []
    for i, document in enumerate(kept.select("id", "source", "meta").iter_rows(named=True)):
        if spans[i]:
            text, found = cut(texts[i], spans[i])
            whole[i] = len(text) < max(config.substrings.min_left_characters, 1)
            if not whole[i]:
                texts[i] = text
                cuts += span_rejects(document, "dedup", found)
    gone = pl.Series(whole, dtype=pl.Boolean)
    rules = pl.Series([of[0][2] if of else None for of in spans], dtype=pl.String)
    left = float(config.substrings.min_left_characters)
    lost = rejects_frame(kept.with_columns(rule=rules).filter(gone), "dedup", pl.col("rule"), pl.lit(0.0), pl.lit(left))
    kept = kept.with_columns(text=pl.Series(texts, dtype=pl.String)).filter(~gone)
    return kept, pl.concat([lost, pl.DataFrame(cuts, schema=REJECTS)])
