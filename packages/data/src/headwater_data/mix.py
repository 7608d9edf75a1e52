"""mix: the corpus in training order, and the documents held out of it.

    hold out by hash -> bytes a source from the weights, capped by epochs -> which documents, how often
    -> order by hash -> train/part-N.parquet, heldout/part-N.parquet

Every choice is a hash of the seed and the document's id, so adding a source moves no document of another one between
train and held-out, and no order depends on how the input was sharded.
"""

from __future__ import annotations

import polars as pl
import xxhash

from ._contracts.errors import UsageError, UserError
from ._contracts.stage import Run
from .config import MixConfig
from .documents import COLUMNS, funnel, part_name, parts, read_part, write_part


def mix(run: Run) -> None:
    """The stage: documents -> corpus."""
    config: MixConfig = run.config
    documents = pl.concat([read_part(path, list(COLUMNS)) for path in parts(run.inputs["documents"])])
    if documents["id"].n_unique() != len(documents):
        twice = documents.filter(documents["id"].is_duplicated())["id"][0]
        raise UserError(f"{run.inputs['documents']}: id {twice} stands for two documents; make the documents again")
    table = documents.select("id", "source", "category", bytes=pl.col("text").str.len_bytes().cast(pl.Int64))
    known = {*table["source"].to_list(), *table["category"].to_list()}
    unknown = [name for name in (*config.weights, *config.heldout_exclude) if name not in known]
    for name in unknown:
        run.log(f"note: the documents hold no source or category {name!r}")
    held = held_out(table, config)
    train = table.filter(~held)
    epochs = plan_epochs(natural_bytes(train), config)
    order = training_order(train.with_row_index("row").with_columns(row=held.not_().arg_true()), epochs, config.seed)
    _write(run, "train", documents, order, config.documents_per_shard)
    heldout_rows = pl.DataFrame({"row": held.arg_true(), "id": table.filter(held)["id"]}).with_columns(epoch=pl.lit(0))
    heldout_rows = heldout_rows.with_columns(key=_keys(heldout_rows["id"], f"order {config.seed} 0")).sort("key", "id")
    _write(run, "heldout", documents, heldout_rows, config.documents_per_shard)
    run.write_metrics(_metrics(table, held, order, epochs))
    total = int(table["bytes"].gather(order["row"]).sum())
    run.log(f"{len(order)} training documents, {total / 1e6:.1f} MB; {int(held.sum())} held out")


def held_out(table: pl.DataFrame, config: MixConfig) -> pl.Series:
    """Which documents are held out: those with the smallest hashes, up to the fraction and the cap on bytes.

    Duplicates are gone by now, and a document is held out whole, so no near-duplicate crosses the split.

    Returns:
        (documents,) bool.
    """
    excluded = list(config.heldout_exclude)
    candidates = (
        table.with_row_index("row")
        .filter(~(pl.col("source").is_in(excluded) | pl.col("category").is_in(excluded)))
        .with_columns(key=_keys_expr(f"heldout {config.seed}"))
        .filter(pl.col("key") < int(config.heldout_fraction * 2**64))
        .sort("key", "id")
    )
    if config.heldout_max_bytes:
        candidates = candidates.filter(pl.col("bytes").cum_sum() <= config.heldout_max_bytes)
    chosen = set(candidates["row"].to_list())
    return pl.Series("held", [i in chosen for i in range(len(table))], dtype=pl.Boolean)


def natural_bytes(train: pl.DataFrame) -> dict[str, tuple[str, int]]:
    """source -> (category, bytes)."""
    sums = train.group_by("source", "category").agg(pl.col("bytes").sum()).sort("source", "category")
    return {source: (category, int(size)) for source, category, size in sums.iter_rows() if size}


def plan_epochs(natural: dict[str, tuple[str, int]], config: MixConfig) -> dict[str, float]:
    """How often each source is seen: its weight's share of the budget over its size, at most `max_epochs`.

    A weight is a factor on the source's natural share of bytes; what a capped source can't take goes to the others.
    Without a budget, the budget is what the weights alone give: a source of weight 1 is seen once.

    Raises:
        UsageError: the weights leave nothing.
    """
    weight = {s: config.weights.get(s, config.weights.get(category, 1.0)) for s, (category, _) in natural.items()}
    size = {s: n for s, (_, n) in natural.items() if weight[s] > 0}
    if not size:
        raise UsageError("mix.weights: every source has weight 0; leave at least one above")
    if not config.total_bytes:
        return {s: min(weight[s], config.max_epochs) if s in size else 0.0 for s in natural}
    epochs = dict.fromkeys(natural, 0.0)
    budget, open_sources = float(config.total_bytes), set(size)
    while open_sources:
        scale = budget / sum(weight[s] * size[s] for s in open_sources)
        capped = {s for s in open_sources if weight[s] * scale > config.max_epochs}
        if not capped:
            epochs.update({s: weight[s] * scale for s in open_sources})
            break
        for s in capped:
            epochs[s] = config.max_epochs
            budget -= config.max_epochs * size[s]
        open_sources -= capped
    return epochs


def training_order(train: pl.DataFrame, epochs: dict[str, float], seed: int) -> pl.DataFrame:
    """The documents in the order of training: row, id, epoch; a repeated document once an epoch.

    Of a last epoch that is not whole, the documents with the smallest hashes are taken, up to its share of bytes.

    Args:
        train: row (into the documents), id, source, bytes.
    """
    copies = []
    for (source,), group in train.group_by("source", maintain_order=True):
        times = epochs.get(str(source), 0.0)
        for epoch in range(int(times)):
            copies.append(group.select("row", "id", epoch=pl.lit(epoch, pl.Int32)))
        share = times - int(times)
        if share > 1e-9:
            picked = group.with_columns(key=_keys_expr(f"epoch {seed} {int(times)}")).sort("key", "id")
            picked = picked.filter(pl.col("bytes").cum_sum() - pl.col("bytes") / 2 <= share * group["bytes"].sum())
            copies.append(picked.select("row", "id", epoch=pl.lit(int(times), pl.Int32)))
    empty = pl.DataFrame(schema={"row": train.schema["row"], "id": pl.String, "epoch": pl.Int32})
    order = pl.concat([empty, *copies])
    keys = [
        xxhash.xxh3_64_intdigest(f"order {seed} {epoch} {id_}") for id_, epoch in order.select("id", "epoch").rows()
    ]
    return order.with_columns(key=pl.Series(keys, dtype=pl.UInt64)).sort("key", "id", "epoch")


def _keys(ids: pl.Series, salt: str) -> pl.Series:
    return pl.Series("key", [xxhash.xxh3_64_intdigest(f"{salt} {id_}") for id_ in ids.to_list()], dtype=pl.UInt64)


def _keys_expr(salt: str) -> pl.Expr:
    return pl.col("id").map_batches(lambda ids: _keys(ids, salt), return_dtype=pl.UInt64).alias("key")


def _write(run: Run, split: str, documents: pl.DataFrame, order: pl.DataFrame, size: int) -> None:
    for number, start in enumerate(range(0, max(len(order), 1), size)):
        rows = order.slice(start, size)
        part = documents[rows["row"].to_list()].with_columns(epoch=rows["epoch"].cast(pl.Int32))
        write_part(run.out / split / part_name(number), part)


def _metrics(table: pl.DataFrame, held: pl.Series, order: pl.DataFrame, epochs: dict[str, float]) -> dict:
    chosen = table[order["row"].to_list()]
    metrics = funnel(table.select("source", "bytes"), chosen.select("source", "bytes"))
    total = max(metrics["bytes_out"], 1)
    for source, entry in metrics["by_source"].items():
        entry["share"] = round(entry["bytes_out"] / total, 6)
        entry["epochs"] = round(epochs.get(source, 0.0), 4)
    categories = chosen.group_by("category").agg(pl.col("bytes").sum()).sort("category")
    metrics["by_category"] = {name: round(int(size) / total, 6) for name, size in categories.iter_rows()}
    kept = table.filter(held)
    sums = kept.group_by("source").agg(pl.len(), pl.col("bytes").sum()).sort("source")
    metrics["heldout"] = {
        "documents": len(kept), "bytes": int(kept["bytes"].sum()),
        "by_source": {s: {"documents": n, "bytes": int(b)} for s, n, b in sums.iter_rows()},
    }  # fmt: skip
    return metrics
