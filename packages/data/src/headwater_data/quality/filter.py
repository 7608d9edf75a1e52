"""filter: thresholds on signal columns. Rules are data; the first that fires takes the document, all are counted."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from .._contracts.stage import Run
from ..config import FilterConfig
from ..config.quality import FLAGS
from ..documents import base_id, blocks, funnel, rejects_frame, write_split
from .rules import check_signals, verdicts
from .selection import check_selection, selected, top_score


def flagged(documents: pl.DataFrame, judged: pl.DataFrame, flags: Mapping[str, str]) -> pl.DataFrame:
    """The verdicts with what people said: `keep` overrules every rule, `drop` and `wrong_extraction` remove."""
    if not flags:
        return judged
    by_id = {base_id(id_): flag for id_, flag in flags.items()}
    said = pl.Series([by_id.get(base_id(i)) for i in documents["id"]], dtype=pl.String)
    falls = said.is_in(["drop", "wrong_extraction"]).fill_null(False)
    stays = (said == "keep").fill_null(False)
    return judged.with_columns(
        rule=pl.when(falls).then("flag_" + said).when(~stays).then("rule"),
        value=pl.when(~falls & ~stays).then("value"),
        threshold=pl.when(~falls & ~stays).then("threshold"),
    )


def filter_documents(run: Run) -> None:
    """The stage: documents with signals -> the documents that pass."""
    config: FilterConfig = run.config
    before, after, rejected, counts = [], [], [], []
    wanted, honoured = {base_id(i) for i in config.flags}, set()
    shards = blocks(run.inputs["documents"])
    columns = shards[0].columns()
    check_signals(config.rules, columns)
    check_selection(config.select, columns)
    bar = top_score(shards, config) if config.select.keep == "top" else None
    for block in shards:
        documents = block.read()
        judged, fired = verdicts(documents, config.rules)
        judged = flagged(documents, selected(documents, judged, config.select, bar), config.flags)
        honoured |= {base_id(i) for i in documents["id"]} & wanted
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
    if config.flags:
        metrics["flags"] = {flag: sum(f == flag for f in config.flags.values()) for flag in FLAGS}
        metrics["flags"]["not_found"] = len(wanted - honoured)  # of documents that an earlier stage removed
    run.write_metrics(metrics)
    run.log(
        f"{metrics['documents_out']} of {metrics['documents_in']} documents kept, "
        f"{metrics['bytes_out'] / 1e6:.1f} of {metrics['bytes_in'] / 1e6:.1f} MB"
    )
