"""Published rules are ambiguous: do ours decide as datatrove's own filter classes do, given the same words?

Every document of a finished lineage (22,493 at scale tiny) through both; a row counts the documents on which verdict
and reason agree. datatrove's splitters are replaced by ours, so that what is compared is the rules and not spaCy.
n-grams are equal by their letters, as datatrove compares them; the last row has this package's default, by their words.
A page that holds both `lorem ipsum` and `{` is rejected by both: datatrove gives the one it reads first as the reason,
here both rules fire, and that counts as agreement.
"""

from __future__ import annotations

import re
from functools import partial
from unittest import mock

import datatrove.pipeline.filters.c4_filters as c4
import datatrove.pipeline.filters.fineweb_quality_filter as fineweb
import datatrove.pipeline.filters.gopher_quality_filter as gopher_quality
import datatrove.pipeline.filters.gopher_repetition_filter as gopher_repetition
import polars as pl
from datatrove.data import Document

from benchmarks.data import artefacts
from benchmarks.frame import Row
from headwater_data.config import Definitions, published_rules
from headwater_data.quality.heuristics import measure
from headwater_data.quality.rules import verdicts

REASONS = {  # datatrove's reason -> the rule here, in datatrove's order
    "Gopher quality": {
        "gopher_short_doc": "gopher_short_doc", "gopher_long_doc": "gopher_long_doc",
        "gopher_below_avg_threshold": "gopher_short_words", "gopher_above_avg_threshold": "gopher_long_words",
        "gopher_too_many_hashes": "gopher_hashes", "gopher_too_many_ellipsis": "gopher_ellipses",
        "gopher_too_many_bullets": "gopher_bullet_lines", "gopher_too_many_end_ellipsis": "gopher_ellipsis_lines",
        "gopher_below_alpha_threshold": "gopher_alpha_words", "gopher_enough_stop_words": "gopher_stop_words",
    },
    "Gopher repetition": {
        "dup_para_frac": "gopher_duplicate_paragraphs", "dup_para_char_frac": "gopher_duplicate_paragraph_chars",
        "dup_line_frac": "gopher_duplicate_lines", "dup_line_char_frac": "gopher_duplicate_line_chars",
        **{f"top_{n}_gram": f"gopher_top_{n}_gram" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"gopher_duplicate_{n}_gram" for n in range(5, 11)},
    },
    "C4": {"lorem_ipsum": "c4_lorem_ipsum", "curly_bracket": "c4_curly_brackets", "too_few_sentences": "c4_sentences"},
    "FineWeb": {
        "line_punct_ratio": "fineweb_terminal_lines", "short_line_ratio": "fineweb_short_lines",
        "char_dup_ratio": "fineweb_duplicate_line_chars", "list_ratio": "fineweb_newlines_per_word",
    },
}  # fmt: skip
PEERS = {
    "Gopher quality": (gopher_quality, gopher_quality.GopherQualityFilter),
    "Gopher repetition": (gopher_repetition, gopher_repetition.GopherRepetitionFilter),
    "C4": (c4, partial(c4.C4QualityFilter, filter_no_terminal_punct=False)),
    "FineWeb": (fineweb, fineweb.FineWebQualityFilter),
}
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")


def sentences(text: str, language: str) -> list[str]:
    """The kernel's definition of a sentence, in plain Python."""
    pieces, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        pieces.append(text[start : end.end()])
        start = end.end()
    return pieces + ([text[start:]] if not pieces or text[start:].strip() else [])


def words(text: str, language: str) -> list[str]:
    return text.split()


def run(quick: bool) -> list[Row]:
    """One row a family of rules."""
    texts = pl.read_parquet(artefacts() / "extracted" / "part-*.parquet", columns=["text"])["text"]
    texts = texts.head(500) if quick else texts
    measured = {
        ngrams: measure(texts, Definitions(ngrams=ngrams)).with_columns(
            category=pl.lit("internet"), source=pl.lit("web"), language=pl.lit("en")
        )
        for ngrams in ("letters", "words")
    }
    rows = []
    for family, reasons in REASONS.items():
        rules = {name: published_rules()[name] for name in reasons.values()}
        module, make = PEERS[family]
        splitter = "split_into_sentences" if family == "C4" else "split_into_words"
        with mock.patch.object(module, splitter, sentences if family == "C4" else words):
            peer = make()
            theirs = [peer.filter(Document(text=text, id="")) for text in texts]
        named = [None if verdict is True else reasons[verdict[1]] for verdict in theirs]  # type: ignore[index]
        rows.append(_row(family, measured["letters"], rules, named))
        if family == "Gopher repetition":
            rows.append(_row(f"{family}, n-grams by words", measured["words"], rules, named))
    return rows


def _row(family: str, measured: pl.DataFrame, rules: dict, named: list[str | None]) -> Row:
    judged, fired = verdicts(measured, rules)
    ours = judged["rule"].to_list()
    decided = sum((a is None) == (b is None) for a, b in zip(ours, named, strict=True))
    hits = fired.to_dicts()
    if family == "C4":
        same = sum(a is None if b is None else hits[i][b] for i, (a, b) in enumerate(zip(ours, named, strict=True)))
    else:
        same = sum(a == b for a, b in zip(ours, named, strict=True))
    kept = sum(b is None for b in named)
    how = f"{len(ours)} documents, {kept} kept by datatrove; verdict equal on {decided}, and reason on {same}"
    target = None if "by words" in family else 1.0
    return Row(family, "documents that agree", same, "datatrove", "0.10.1", len(ours), same / len(ours), target, how)
