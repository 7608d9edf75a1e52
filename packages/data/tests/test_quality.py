"""Signals against datatrove's own filter classes, and against brute force."""

from __future__ import annotations

import datatrove.pipeline.filters.fineweb_quality_filter as fineweb
import datatrove.pipeline.filters.gopher_quality_filter as gopher_quality
import datatrove.pipeline.filters.gopher_repetition_filter as gopher_repetition
import polars as pl
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_data.config import published_rules
from headwater_data.quality.heuristics import DUPLICATE_NGRAMS, SIGNALS, TOP_NGRAMS, measure
from headwater_data.quality.rules import verdicts

REASONS = {
    "gopher_short_doc": "gopher_short_doc", "gopher_long_doc": "gopher_long_doc",
    "gopher_below_avg_threshold": "gopher_short_words", "gopher_above_avg_threshold": "gopher_long_words",
    "gopher_too_many_hashes": "gopher_hashes", "gopher_too_many_ellipsis": "gopher_ellipses",
    "gopher_too_many_bullets": "gopher_bullet_lines", "gopher_too_many_end_ellipsis": "gopher_ellipsis_lines",
    "gopher_below_alpha_threshold": "gopher_alpha_words", "gopher_enough_stop_words": "gopher_stop_words",
    "dup_para_frac": "gopher_duplicate_paragraphs", "dup_para_char_frac": "gopher_duplicate_paragraph_chars",
    "dup_line_frac": "gopher_duplicate_lines", "dup_line_char_frac": "gopher_duplicate_line_chars",
    **{f"top_{n}_gram": f"gopher_top_{n}_gram" for n in TOP_NGRAMS},
    **{f"duplicated_{n}_n_grams": f"gopher_duplicate_{n}_gram" for n in DUPLICATE_NGRAMS},
    "line_punct_ratio": "fineweb_terminal_lines", "short_line_ratio": "fineweb_short_lines",
    "char_dup_ratio": "fineweb_duplicate_line_chars", "list_ratio": "fineweb_newlines_per_word",
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(topics, modules) -> list[str]:
    short = [t[:300] for t in topics[:20]]
    lists = ["\n".join(f"- item {i % 3}" for i in range(n)) for n in (3, 20, 80)]
    dots = ["What is it about ...\n" * 30, "a b c d e " * 40, "# " * 60 + "the of and be " * 20, "x" * 3000]
    return [*topics, *modules, *short, *lists, *dots]


NAMES = list(REASONS.values())


@pytest.mark.parametrize(
    ("module", "peer", "own"),
    [
        (gopher_quality, gopher_quality.GopherQualityFilter, NAMES[:10]),
        (gopher_repetition, gopher_repetition.GopherRepetitionFilter, NAMES[10:23]),
        (fineweb, fineweb.FineWebQualityFilter, NAMES[23:]),
    ],
    ids=["gopher quality", "gopher repetition", "fineweb"],
)
def test_decisions_and_reasons_equal_datatroves_given_the_same_words(monkeypatch, texts, module, peer, own):
    monkeypatch.setattr(module, "split_into_words", lambda text, language: text.split())
    rules = {n: r for n, r in published_rules().items() if n in own}
    assert len(rules) == len(own)
    frame = pl.DataFrame([measure(t) for t in texts]).with_columns(category=pl.lit("internet"), source=pl.lit("s"))
    fired = verdicts(frame, rules)[1].to_dicts()
    rejected = 0
    for text, hits in zip(texts, fired, strict=True):
        verdict = peer().filter(Document(text=text, id="0"))
        theirs = None if verdict is True else verdict[1]
        ours = next((reason for reason, name in REASONS.items() if hits.get(name)), None)
        assert ours == theirs
        rejected += theirs is not None
    assert rejected >= 3  # the comparison saw both verdicts


@given(st.lists(st.sampled_from(["ab", "cd", "efg", "h", "the", "of"]), max_size=60), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_ngram_shares_equal_brute_force(words, breaks):
    text = (" " * (breaks + 1)).join(words)
    signals = measure(text)
    size = max(len(text), 1)
    for n in TOP_NGRAMS:
        grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        best = max(grams, key=grams.count) if grams else ""
        assert signals[f"gopher_top_{n}_gram"] == pytest.approx(len(best) * grams.count(best) / size if grams else 0)
    for n in DUPLICATE_NGRAMS:
        seen, characters, i = set(), 0, 0
        while i <= len(words) - n:
            gram = tuple(words[i : i + n])
            if gram in seen:
                characters += len("".join(gram))
                i += n
            else:
                seen.add(gram)
                i += 1
        assert signals[f"gopher_duplicate_{n}_gram"] == pytest.approx(characters / size)


@given(st.text(max_size=300))
@settings(max_examples=80, deadline=None)
def test_every_signal_is_a_finite_number_for_any_text(text):
    signals = measure(text)
    assert tuple(sorted(signals)) == tuple(sorted(SIGNALS))
    assert all(value >= 0 and value == value and value != float("inf") for value in signals.values())
