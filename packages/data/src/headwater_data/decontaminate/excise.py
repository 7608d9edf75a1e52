"""Taking leaks out: spans cut from documents, or whole documents removed (GPT-3's rule, appendix C)."""

from __future__ import annotations

import polars as pl

from ..config import DecontaminateConfig
from ..documents import REJECTS, span_rejects
from ..words import word_spans


def excise_block(
    documents: pl.DataFrame, hits: pl.DataFrame, config: DecontaminateConfig
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut one block's leaks, or remove its documents.

    Args:
        hits: row (in the block), word (its first), n (words): the spans.

    Returns:
        The documents that remain (a cut one becomes a document a piece, `ID~1`, `ID~2`, ...), the rejects (removed
        documents and excised spans).
    """
    nothing = pl.DataFrame(schema=REJECTS)
    if not len(hits):
        return documents, nothing
    rows = hits.group_by("row").agg("word", "n").sort("row")
    pieces: list[dict] = []
    rejects: list[dict] = []
    for row, words, lengths in rows.iter_rows():
        document = documents.row(row, named=True)
        spans = merge_spans(document["text"], list(zip(words, lengths, strict=True)), config.margin_characters)
        left = remainders(document["text"], spans, config.min_piece_characters)
        if config.action == "remove" or len(spans) > config.max_cuts or not left:
            whole = {"stage": "decontaminate", "rule": "holds_item", "value": float(len(spans)), "threshold": None}
            rejects.append({**whole, **{name: document[name] for name in ("id", "source", "text", "meta")}})
            continue
        cuts = [("item_span", document["text"][start:end], start) for start, end in spans]
        rejects += span_rejects(document, "decontaminate", cuts)
        pieces += [{**document, "id": f"{document['id']}~{i}", "text": text} for i, text in enumerate(left, 1)]
    kept = documents.filter(~pl.int_range(pl.len()).is_in(rows["row"].to_list()))
    if pieces:
        kept = pl.concat([kept, pl.DataFrame(pieces, schema=documents.schema)])
    return kept, pl.DataFrame(rejects, schema=REJECTS) if rejects else nothing


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
