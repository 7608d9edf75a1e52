"""decontaminate: take the benchmark items that eval scores out of the training text.

    items -> n-grams; pass 1, a block a worker: which n-grams of which items stand in which documents
    n-grams that stand in many documents are common phrases and drop out
    pass 2: spans cut or documents removed, overlap.jsonl item by item

GPT-3's rule (Brown et al. 2020, arXiv 2005.14165, appendix C): 13-grams of lower-case words without punctuation; the
match goes with 200 characters on either side, pieces under 200 characters go, a document cut more than 10 times goes.
What is reported is containment, the share of an item's n-grams that one document holds: a short item in a long
document has a Jaccard similarity near 0 and a containment of 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ._contracts.errors import UserError
from ._contracts.manifest import write_atomic
from ._contracts.stage import Run
from .config import DecontaminateConfig
from .documents import REJECTS, Block, blocks, count_rejects, funnel, part_name, write_part, write_split
from .fanout import fan_out
from .words import ngram_hashes, word_spans, word_stream

DOCUMENTS_LISTED = 20  # ids an item in overlap.jsonl; their number is given in full


@dataclass(frozen=True)
class Items:
    """Benchmark items as n-grams."""

    table: pl.DataFrame
    """task, id, words (int), n (the length of its n-grams, 0: too short to look for), ngrams (distinct ones)."""
    grams: pl.DataFrame
    """item (row of `table`), n, gram (uint64): one row an item and distinct n-gram."""

    def by_length(self) -> dict[int, np.ndarray]:
        """n -> sorted distinct n-grams, uint64."""
        return {
            int(n): np.unique(part["gram"].to_numpy()) for (n,), part in self.grams.group_by("n", maintain_order=True)
        }  # type: ignore[misc]


def decontaminate(run: Run) -> None:
    """The stage: documents, items -> documents that hold no item; overlap.jsonl."""
    config: DecontaminateConfig = run.config
    shards = blocks(run.inputs["documents"])
    items = load_items(run.inputs["items"], config)
    lookup = run.work / "items.npz"
    wanted = items.by_length()
    np.savez(lookup, allow_pickle=False, **{str(n): grams for n, grams in wanted.items()})
    found = run.work / "hits"
    fan_out(run, "search", partial(search_block, found, lookup), shards, config)

    hits = pl.concat([pl.read_parquet(found / part_name(b.number)) for b in shards])
    frequency = hits.select("document", "n", "gram").unique().group_by("n", "gram").len("documents")
    common = frequency.filter(pl.col("documents") > config.max_ngram_documents).select("n", "gram")
    hits = hits.join(common, on=["n", "gram"], how="anti", maintain_order="left")
    overlap = overlap_table(items, hits)
    _write_overlap(run.out / "overlap.jsonl", overlap)

    before, after = [], []
    outcomes: dict[str, int] = {}
    for block in shards:
        documents = block.read()
        here = hits.filter(pl.col("block") == block.number)
        kept, rejected, counts = excise_block(documents, here, config)
        for name, n in counts.items():
            outcomes[name] = outcomes.get(name, 0) + n
        write_split(run.out, block.number, kept, rejected)
        before.append(documents.select("source", bytes=pl.col("text").str.len_bytes()))
        after.append(kept.select("source", bytes=pl.col("text").str.len_bytes()))
    metrics = funnel(pl.concat(before), pl.concat(after), [count_rejects(run.out)])
    metrics.update(outcomes)
    metrics["common_ngrams"] = len(common)
    metrics["tasks"] = _by_task(items, overlap)
    run.write_metrics(metrics)
    run.log(
        f"{len(overlap.select('item').unique())} of {len(items.table)} items found in "
        f"{outcomes.get('documents_cut', 0) + outcomes.get('documents_removed', 0)} documents; "
        f"{(metrics['bytes_in'] - metrics['bytes_out']) / 1e3:.1f} kB removed"
    )


def load_items(folder: Path, config: DecontaminateConfig) -> Items:
    """Every TASK.jsonl of an items artefact as n-grams.

    An item of fewer than `ngram_words` words is looked for whole; below `min_item_words` it is not looked for.

    Raises:
        UserError: no task file, or a line that is no item.
    """
    files = sorted(p for p in folder.glob("*.jsonl") if p.name != "rejects.jsonl")
    if not files:
        raise UserError(f"{folder}: no TASK.jsonl; run headwater-eval items")
    rows, texts = [], []
    for path in files:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                item = json.loads(line)
                rows.append((item["task"], str(item["id"])))
                texts.append(str(item["text"]))
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}: line {number} is no item (id, task, text); make the items again") from None
    stream = word_stream(texts)
    lengths = np.diff(stream.starts)
    n_of = np.where(lengths >= config.ngram_words, config.ngram_words, lengths)
    n_of = np.where(lengths < config.min_item_words, 0, n_of)
    parts = []
    for n in sorted(set(n_of.tolist()) - {0}):
        grams, positions = ngram_hashes(stream, n)
        owner = np.searchsorted(stream.starts, positions, side="right") - 1
        mine = n_of[owner] == n
        parts.append(pl.DataFrame({"item": owner[mine], "gram": grams[mine]}).with_columns(n=pl.lit(n)))
    empty = pl.DataFrame(schema={"item": pl.Int64, "gram": pl.UInt64, "n": pl.Int32})
    grams_table = pl.concat([empty, *parts]).unique(maintain_order=True)
    table = pl.DataFrame(rows, schema=["task", "id"], orient="row").with_columns(
        item=pl.int_range(len(rows)), words=pl.Series(lengths), n=pl.Series(n_of)
    )
    counts = grams_table.group_by("item").agg(pl.len().alias("ngrams"))
    table = table.join(counts, on="item", how="left", maintain_order="left").with_columns(pl.col("ngrams").fill_null(0))
    return Items(table, grams_table)


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


def overlap_table(items: Items, hits: pl.DataFrame) -> pl.DataFrame:
    """One row an item and document that share an n-gram: item, task, id, document, containment, words."""
    shared = (
        items.grams.with_columns(pl.col("n").cast(pl.Int64))
        .join(hits.select("document", "n", "gram").unique(), on=["n", "gram"])
        .group_by("item", "document")
        .agg(pl.len().alias("shared"))
    )
    return (
        shared.join(items.table.with_columns(pl.col("item").cast(pl.Int64)), on="item")
        .with_columns(containment=pl.col("shared") / pl.col("ngrams"))
        .select("item", "task", "id", "words", "document", "containment")
        .sort(["item", "containment", "document"], descending=[False, True, False])
    )


def _write_overlap(path: Path, overlap: pl.DataFrame) -> None:
    """overlap.jsonl: an item that was found a line, the documents that held most of it first."""
    grouped = overlap.group_by("item", "task", "id", "words", maintain_order=True).agg(
        pl.col("containment").max().alias("containment"), pl.len().alias("documents"),
        pl.col("document").head(DOCUMENTS_LISTED), pl.col("containment").head(DOCUMENTS_LISTED).alias("each"),
    )  # fmt: skip
    lines = []
    for row in grouped.iter_rows(named=True):
        held = [{"id": d, "containment": round(c, 4)} for d, c in zip(row["document"], row["each"], strict=True)]
        line = {
            "task": row["task"], "id": row["id"], "words": row["words"], "containment": round(row["containment"], 4),
            "documents": row["documents"], "held_by": held,
        }  # fmt: skip
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))


def excise_block(
    documents: pl.DataFrame, hits: pl.DataFrame, config: DecontaminateConfig
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Cut one block's hits, or remove its documents.

    Returns:
        The documents that remain (a cut one becomes a document a piece, `ID~1`, `ID~2`, ...), the rejects (removed
        documents and excised spans), and counts of documents cut and removed.
    """
    counts = {"documents_cut": 0, "documents_removed": 0}
    nothing = pl.DataFrame(schema=REJECTS)
    if not len(hits):
        return documents, nothing, counts
    rows = hits.group_by("row").agg("word", "n").sort("row")
    pieces: list[dict] = []
    rejects: list[dict] = []
    for row, words, lengths in rows.iter_rows():
        document = documents.row(row, named=True)
        spans = merge_spans(document["text"], list(zip(words, lengths, strict=True)), config.margin_characters)
        reject = {"stage": "decontaminate", "source": document["source"], "meta": document["meta"], "threshold": None}
        left = remainders(document["text"], spans, config.min_piece_characters)
        if config.action == "remove" or len(spans) > config.max_cuts or not left:
            counts["documents_removed"] += 1
            rejects.append(
                {
                    **reject,
                    "id": document["id"],
                    "rule": "holds_item",
                    "value": float(len(spans)),
                    "text": document["text"],
                }
            )
            continue
        counts["documents_cut"] += 1
        for number, (start, end) in enumerate(spans, 1):
            text = document["text"][start:end]
            rejects.append(
                {
                    **reject,
                    "id": f"{document['id']}~cut{number}",
                    "rule": "item_span",
                    "value": float(start),
                    "text": text,
                }
            )
        pieces += [{**document, "id": f"{document['id']}~{i}", "text": text} for i, text in enumerate(left, 1)]
    kept = documents.filter(~pl.int_range(pl.len()).is_in(rows["row"].to_list()))
    if pieces:
        kept = pl.concat([kept, pl.DataFrame(pieces, schema=documents.schema)])
    return kept, pl.DataFrame(rejects, schema=REJECTS) if rejects else nothing, counts


def merge_spans(text: str, hits: list[tuple[int, int]], margin: int) -> list[tuple[int, int]]:
    """Character spans of hits with a margin on either side, overlapping ones joined.

    Args:
        hits: (position of the first word, number of words) each.
        margin: characters.
    """
    bounds = word_spans(text)
    spans: list[tuple[int, int]] = []
    for word, n in sorted(hits):
        start, end = max(bounds[word][0] - margin, 0), min(bounds[word + n - 1][1] + margin, len(text))
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def remainders(text: str, spans: list[tuple[int, int]], shortest: int) -> list[str]:
    """What is left between the spans, pieces under `shortest` characters dropped."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = [text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [piece for piece in pieces if len(piece) >= shortest]


def _by_task(items: Items, overlap: pl.DataFrame) -> dict[str, dict[str, int]]:
    found = overlap.group_by("item").agg(pl.col("containment").max())
    table = items.table.with_columns(pl.col("item").cast(pl.Int64)).join(found, on="item", how="left")
    rows = table.group_by("task").agg(
        pl.len().alias("items"),
        (pl.col("n") == 0).sum().alias("too_short"),
        pl.col("containment").is_not_null().sum().alias("found"),
        (pl.col("containment") >= 0.8).sum().alias("contained"),  # 80%: the Llama 2 report's line for "dirty"
    )
    return {row.pop("task"): row for row in rows.sort("task").iter_rows(named=True)}
