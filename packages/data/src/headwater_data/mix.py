"""mix: the corpus in training order, and the documents held out of it.

    a block a worker: facts of each document, and the block as Arrow, which is mapped and not read
    hold out clusters by hash
    -> epochs a stratum (source, language, quality bin) from weights, temperature, budget and caps
    -> which documents, how often, canaries among them where asked for -> order by hash
    a shard of the result a worker: train/part-N.parquet, heldout/part-N.parquet

Every choice is a hash of the seed and the document's id, so adding a source moves no document of another one between
train and held-out, and no order depends on how the input was sharded. In memory are some 50 bytes a document, and the
text of one shard a worker.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from . import canaries
from ._contracts.errors import UsageError, UserError
from ._contracts.fanout import fan_out
from ._contracts.manifest import write_atomic
from ._contracts.stage import Run
from .config import MixConfig
from .documents import (
    COLUMNS,
    Block,
    blocks,
    check_number_column,
    funnel,
    named,
    part_name,
    publish_parts,
    work_of,
    write_part,
)  # fmt: skip

STRATUM = ["source", "category", "lang", "bin"]


def mix(run: Run) -> None:
    """The stage: documents -> corpus."""
    config: MixConfig = run.config
    shards = blocks(run.inputs["documents"])
    if config.quality.column:
        check_number_column("mix.quality.column", config.quality.column, shards[0].columns())
    counts = [b.rows() for b in shards]
    mapped = run.work / "mapped"
    fan_out(run, "facts", partial(describe_block, mapped, config), shards, config, light=True)
    facts = pl.concat([pl.read_parquet(mapped / part_name(b.number)) for b in shards]).with_row_index("row")
    _check_ids(run, mapped, counts, facts)
    _note_unknown_names(run, facts, config)
    facts = facts.with_columns(held=held_out(facts, config))
    train = facts.filter(~pl.col("held"))
    strata = plan_epochs(natural_bytes(train), config)
    secrets = canaries.make(config.canaries)
    if secrets:
        _check_source_is_free(run, facts)
        write_atomic(run.out / canaries.FILE, canaries.lines(secrets))
        map_documents(mapped, len(shards), canaries.as_documents(secrets))
        counts.append(len(secrets))
    planted = planted_facts(secrets, len(facts))
    order = training_order(train, strata, config.seed, planted)
    held = facts.filter("held").select("row", epoch=pl.lit(0, pl.Int32), key=_keys("id_hash", f"order {config.seed} 0"))
    held = held.sort("key", "row").drop("key")
    for split, rows in (("train", order), ("heldout", held)):
        write_part(run.work / f"{split}.parquet", rows)
        starts = range(0, max(len(rows), 1), config.documents_per_shard)
        gather = partial(_gather, run.work, mapped, split, counts, config.documents_per_shard)
        fan_out(run, f"write-{split}", gather, starts, config, light=True)
    publish_parts(run.work / "parts", run.out)
    metrics = _metrics(facts, order, strata, planted)
    run.write_metrics(metrics)
    for line in table(metrics, strata):
        run.log(line)


def describe_block(mapped: Path, config: MixConfig, block: Block) -> None:
    """One block's facts, a row a document, and its documents as Arrow on disk."""
    wanted = [*COLUMNS, "cluster", *([config.quality.column] if config.quality.column else [])]
    documents = block.read()
    documents = documents.select([c for c in wanted if c in documents.columns])
    group = pl.col("cluster") if "cluster" in documents.columns else pl.col("id")
    if config.heldout_by == "work":
        group = pl.col("id").map_elements(work_of, return_dtype=pl.String)
    bin_ = pl.lit(0, pl.Int32)
    for edge in config.quality.edges if config.quality.column else ():
        bin_ = bin_ + (pl.col(config.quality.column) >= edge).fill_null(False).cast(pl.Int32)
    facts = documents.select(
        "source", "category", "lang", bin=bin_, bytes=pl.col("text").str.len_bytes().cast(pl.Int64),
        id_hash=_hashes(pl.col("id")), group=_hashes(group),
    )  # fmt: skip
    write_part(mapped / part_name(block.number), facts)
    map_documents(mapped, block.number, documents)


def map_documents(mapped: Path, number: int, documents: pl.DataFrame) -> None:
    """Documents as Arrow on disk, block `number` of those that are mapped and not read."""
    target = mapped / f"{number:05d}.arrow"
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    arrow = documents.select(COLUMNS).to_arrow()
    with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    os.replace(beside, target)


def _hashes(column: pl.Expr) -> pl.Expr:
    return column.map_batches(
        lambda values: pl.Series([xxhash.xxh3_64_intdigest(v) for v in values.to_list()], dtype=pl.UInt64),
        return_dtype=pl.UInt64,
    )


def _keys(column: str, salt: str) -> pl.Expr:
    """A random number in [0, 2**64) for each value, the same whenever salt and value are."""
    prefix = salt.encode() + b" "

    def draw(values: pl.Series) -> pl.Series:
        raw = values.to_numpy().astype("<u8").tobytes()
        return pl.Series(
            [xxhash.xxh3_64_intdigest(prefix + raw[i : i + 8]) for i in range(0, len(raw), 8)], dtype=pl.UInt64
        )

    return pl.col(column).map_batches(draw, return_dtype=pl.UInt64)


def _check_ids(run: Run, mapped: Path, counts: list[int], facts: pl.DataFrame) -> None:
    twice = facts.filter(pl.col("id_hash").is_duplicated())["row"].to_list()
    if twice:
        ids = pl.Series(_take(mapped, counts, np.array(twice))["id"].to_pylist())
        same = ids.filter(ids.is_duplicated())
        if len(same):
            raise UserError(
                f"{run.inputs['documents']}: id {same[0]} stands for two documents; make the documents again"
            )


def _note_unknown_names(run: Run, facts: pl.DataFrame, config: MixConfig) -> None:
    known = {*facts["source"].unique().to_list(), *facts["category"].unique().to_list()}
    languages = set(facts["lang"].unique().to_list())
    for name in (*config.weights, *config.epochs, *config.heldout_exclude):
        if name not in known:
            run.log(f"note: the documents hold no source or category {name!r}")
    for name in config.languages:
        if name not in languages:
            run.log(f"note: the documents hold no language {name!r}")


def held_out(facts: pl.DataFrame, config: MixConfig) -> pl.Series:
    """Which documents are held out: the groups with the smallest hashes, up to the fraction and the cap on bytes.

    A group is held out whole, so no document is held out that is similar to a training document.

    Args:
        facts: source, category, group (uint64), bytes.

    Returns:
        (documents,) bool.
    """
    groups = (
        facts.group_by("group")
        .agg(pl.col("bytes").sum(), spared=named(config.heldout_exclude).any())
        .filter(~pl.col("spared"))
        .with_columns(key=_keys("group", f"heldout {config.seed}"))
        .filter(pl.col("key") < int(config.heldout_fraction * 2**64))
        .sort("key", "group")
    )
    if config.heldout_max_bytes:
        groups = groups.filter(pl.col("bytes").cum_sum() <= config.heldout_max_bytes)
    return facts["group"].is_in(groups["group"].to_list())


@dataclass(frozen=True)
class Stratum:
    """Documents that are seen equally often."""

    source: str
    category: str
    lang: str
    bin: int
    bytes: int
    """What there is to train on."""
    epochs: float = 0.0


def natural_bytes(train: pl.DataFrame) -> list[Stratum]:
    """The strata, without epochs yet."""
    sums = train.group_by(STRATUM).agg(pl.col("bytes").sum()).sort(STRATUM)
    return [Stratum(*row) for row in sums.iter_rows() if row[-1]]


def weight_of(strata: list[Stratum], config: MixConfig) -> list[float]:
    """The factor of each stratum on its natural share: weights times language times quality bin times temperature.

    Temperature as in XLM (Conneau and Lample 2019, section 3.1) and mT5 (Xue et al. 2021, section 3.2), whose alpha
    is 1/T: shares ~ share ** (1/T), scaled so that the whole stays as large as it was.
    """
    total = sum(s.bytes for s in strata) or 1
    share: dict[str, float] = {}
    for s in strata:
        name = getattr(s, config.temperature_over)
        share[name] = share.get(name, 0.0) + s.bytes / total
    lifted = {name: p ** (1 / config.temperature) for name, p in share.items()}
    scale = sum(lifted.values())
    bins = config.quality.weights if config.quality.column else (1.0,)
    return [
        config.weights.get(s.source, config.weights.get(s.category, 1.0))
        * config.languages.get(s.lang, 1.0)
        * bins[s.bin]
        * (lifted[getattr(s, config.temperature_over)] / scale / share[getattr(s, config.temperature_over)])
        for s in strata
    ]


def plan_epochs(strata: list[Stratum], config: MixConfig) -> list[Stratum]:
    """How often each stratum is seen: its weight's share of the budget over its size, at most its cap.

    What a capped stratum can't take goes to the others. Without a budget, the budget is what the weights alone give: a
    stratum of weight 1 is seen once.

    Raises:
        UsageError: the weights leave nothing.
    """
    weights = weight_of(strata, config)
    caps = [config.epochs.get(s.source, config.epochs.get(s.category, config.max_epochs)) for s in strata]
    if not any(w and c for w, c in zip(weights, caps, strict=True)):
        raise UsageError("mix: every source has weight 0; leave at least one of mix.weights above")
    epochs = [0.0] * len(strata)
    if not config.budget:
        epochs = [min(w, c) for w, c in zip(weights, caps, strict=True)]
    else:
        left, free = float(config.budget), {i for i, w in enumerate(weights) if w > 0}
        while free:
            scale = left / sum(weights[i] * strata[i].bytes for i in free)
            capped = {i for i in free if weights[i] * scale > caps[i]}
            for i in capped or free:
                epochs[i] = caps[i] if capped else weights[i] * scale
            left -= sum(caps[i] * strata[i].bytes for i in capped)
            free = free - capped if capped else set()
    return [Stratum(s.source, s.category, s.lang, s.bin, s.bytes, e) for s, e in zip(strata, epochs, strict=True)]


def _check_source_is_free(run: Run, facts: pl.DataFrame) -> None:
    if facts.filter(pl.col("source") == canaries.SOURCE).height:
        raise UserError(
            f"{run.inputs['documents']}: a source is named {canaries.SOURCE}, as planted canaries are; rename it"
        )


def planted_facts(secrets: list[dict], first_row: int) -> pl.DataFrame:
    """Facts of the canaries, whose rows follow the documents': row, source, ..., id_hash, repeats."""
    documents = canaries.as_documents(secrets)
    return documents.select(
        "source", "category", "lang", bin=pl.lit(0, pl.Int32), bytes=pl.col("text").str.len_bytes().cast(pl.Int64),
        id_hash=_hashes(pl.col("id")), repeats=pl.Series([c["repeats"] for c in secrets], dtype=pl.Int32),
    ).with_row_index("row", first_row)  # fmt: skip


def training_order(
    train: pl.DataFrame, strata: list[Stratum], seed: int, planted: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The documents in the order of training: row, epoch; a repeated document once an epoch.

    Of a last epoch that is not whole, the documents with the smallest hashes are taken, up to its share of bytes.

    Args:
        train: row, id_hash, bytes and the stratum's columns.
        planted: row, id_hash and repeats of documents that are seen so often, beside the plan.
    """
    times = {(s.source, s.category, s.lang, s.bin): s.epochs for s in strata}
    copies = [pl.DataFrame(schema={"row": train.schema["row"], "epoch": pl.Int32, "key": pl.UInt64})]
    if planted is not None and len(planted):
        for epoch in range(planted["repeats"].max()):  # type: ignore[arg-type]
            seen = planted.filter(pl.col("repeats") > epoch)
            copies.append(
                seen.select("row", epoch=pl.lit(epoch, pl.Int32), key=_keys("id_hash", f"order {seed} {epoch}"))
            )
    for stratum, group in train.group_by(STRATUM, maintain_order=True):
        epochs = times.get(stratum, 0.0)  # type: ignore[call-overload]
        whole = int(epochs)
        share = epochs - whole
        for epoch in range(whole + (share > 1e-9)):
            chosen = group
            if epoch == whole:
                chosen = group.with_columns(key=_keys("id_hash", f"epoch {seed} {epoch}")).sort("key", "row")
                upto = pl.col("bytes").cum_sum() - pl.col("bytes") / 2
                chosen = chosen.filter(upto <= share * group["bytes"].sum())
            copies.append(
                chosen.select("row", epoch=pl.lit(epoch, pl.Int32), key=_keys("id_hash", f"order {seed} {epoch}"))
            )
    return pl.concat(copies).sort("key", "row", "epoch").drop("key")


def _gather(work: Path, mapped: Path, split: str, counts: list[int], size: int, start: int) -> None:
    """Write one shard of the result."""
    rows = pl.read_parquet(work / f"{split}.parquet").slice(start, size)
    documents = _take(mapped, counts, rows["row"].to_numpy())
    documents = documents.append_column("epoch", rows["epoch"].cast(pl.Int32).to_arrow())
    write_part(work / "parts" / split / part_name(start // size), documents)


def _take(mapped: Path, counts: list[int], rows: np.ndarray) -> pa.Table:
    """Documents by their numbers, in that order, out of the mapped blocks: only their own pages are read."""
    firsts = np.concatenate(([0], np.cumsum(counts)))
    home = np.searchsorted(firsts, rows, side="right") - 1
    pieces, places = [], []
    for block in np.unique(home).tolist():
        here = np.flatnonzero(home == block)
        with pa.memory_map(str(mapped / f"{block:05d}.arrow")) as source:
            pieces.append(pa.ipc.open_file(source).read_all().take(pa.array(rows[here] - firsts[block])))
        places.append(here)
    if not pieces:
        with pa.memory_map(str(mapped / "00000.arrow")) as source:
            return pa.ipc.open_file(source).read_all().slice(0, 0)
    back = np.argsort(np.concatenate(places))
    return pa.concat_tables(pieces).take(pa.array(back)).combine_chunks()


def _metrics(facts: pl.DataFrame, order: pl.DataFrame, strata: list[Stratum], planted: pl.DataFrame) -> dict:
    columns = [*STRATUM, "bytes"]
    chosen = pl.concat([facts.select(columns), planted.select(columns)])[order["row"].to_list()]
    metrics = funnel(facts.select("source", "bytes"), chosen.select("source", "bytes"))
    total = max(metrics["bytes_out"], 1)
    held = facts.filter("held")
    sums = held.group_by("source").agg(pl.len(), pl.col("bytes").sum()).sort("source")
    heldout = {s: {"documents": n, "bytes": int(b)} for s, n, b in sums.iter_rows()}
    for source, entry in metrics["by_source"].items():
        own = [s for s in strata if s.source == source]
        there = max(sum(s.bytes for s in own), 1)
        entry["share"] = round(entry["bytes_out"] / total, 6)
        entry["epochs"] = round(sum(s.epochs * s.bytes for s in own) / there, 4)
        entry["bytes_unread"] = round(sum(s.bytes * max(1 - s.epochs, 0) for s in own))
    for name, column in (("by_category", "category"), ("by_language", "lang"), ("by_quality_bin", "bin")):
        shares = chosen.group_by(column).agg(pl.col("bytes").sum()).sort(column)
        metrics[name] = {str(value): round(int(size) / total, 6) for value, size in shares.iter_rows()}
    if len(planted):
        copies = int(planted["repeats"].sum())
        metrics["canaries"] = {"canaries": len(planted), "planted": copies}
    metrics["heldout"] = {"documents": len(held), "bytes": int(held["bytes"].sum()), "by_source": heldout}
    return metrics


def table(metrics: dict, strata: list[Stratum]) -> list[str]:
    """The realised mixture as lines to print: what each source gives, how often, and what of it is never read."""
    lines = [
        f"{'source':<24} {'MB there':>9} {'MB held':>8} {'MB read':>9} {'share':>7} {'epochs':>7} {'MB unread':>9}"
    ]
    held = metrics["heldout"]["by_source"]
    entries = sorted(metrics["by_source"].items(), key=lambda e: -e[1]["bytes_out"])
    for source, entry in entries:
        out = held.get(source, {"bytes": 0})["bytes"]
        lines.append(
            f"{source:<24} {entry['bytes_in'] / 1e6:>9.2f} {out / 1e6:>8.2f} {entry['bytes_out'] / 1e6:>9.2f} "
            f"{entry['share']:>7.2%} {entry['epochs']:>7.2f} {entry['bytes_unread'] / 1e6:>9.2f}"
        )
    lines.append(
        f"{'all':<24} {metrics['bytes_in'] / 1e6:>9.2f} {metrics['heldout']['bytes'] / 1e6:>8.2f} "
        f"{metrics['bytes_out'] / 1e6:>9.2f} {1:>7.2%} "
        f"{metrics['bytes_out'] / max(sum(s.bytes for s in strata), 1):>7.2f} "
        f"{sum(e['bytes_unread'] for _, e in entries) / 1e6:>9.2f}"
    )
    return lines
