"""filter: thresholds on signal columns. Rules are data; the first that fires takes the document, all are counted."""

from __future__ import annotations

import polars as pl

from .._contracts.stage import Run
from ..config import FilterConfig
from ..documents import blocks, funnel, rejects_frame, write_split
from .rules import check_signals, verdicts
from .selection import check_selection, selected, top_score


def filter_documents(run: Run) -> None:
    """The stage: documents with signals -> the documents that pass."""
    config: FilterConfig = run.config
    before, after, rejected, counts = [], [], [], []
    shards = blocks(run.inputs["documents"])
    columns = shards[0].read().head(0).schema
    check_signals(config.rules, columns)
    check_selection(config.select, columns)
    bar = top_score(shards, config) if config.select.keep == "top" else None
    for block in shards:
        documents = block.read()
        judged, fired = verdicts(documents, config.rules)
        judged = selected(documents, judged, config.select, bar)
        sized = documents.select("source", bytes=pl.col("text").str.len_bytes())
        counts.append(fired.sum())
        alone = fired.filter(fired.select(n=pl.sum_horizontal(pl.all().cast(pl.UInt32)))["n"] == 1)
        counts.append(alone.sum().rename(lambda name: f"alone:{name}"))
        whole = documents.with_columns(judged)
        kept = documents.filter(judged["rule"].is_null())
        removed = whole.filter(pl.col("rule").is_not_null())
        write_split(
            run.out, block.number, kept,
            rejects_frame(removed, "filter", pl.col("rule"), pl.col("value"), pl.col("threshold")),
        )  # fmt: skip
        before.append(sized)
        after.append(sized.filter(judged["rule"].is_null()))
        rejected.append(removed.select("rule", bytes=pl.col("text").str.len_bytes()))
        run.progress(f"block {block.number + 1}")
    metrics = funnel(pl.concat(before), pl.concat(after), [pl.concat(rejected)])
    totals = pl.concat(counts, how="diagonal").sum().row(0, named=True)
    metrics["would_fire"] = {name: int(totals.get(name) or 0) for name in config.rules}
    metrics["would_fire_alone"] = {name: int(totals.get(f"alone:{name}") or 0) for name in config.rules}
    run.write_metrics(metrics)
    run.log(
        f"{metrics['documents_out']} of {metrics['documents_in']} documents kept, "
        f"{metrics['bytes_out'] / 1e6:.1f} of {metrics['bytes_in'] / 1e6:.1f} MB"
    )
