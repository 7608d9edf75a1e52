"""Signals against datatrove's own filter classes, and against brute force."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import datatrove.pipeline.filters.c4_filters as c4
import datatrove.pipeline.filters.fineweb_quality_filter as fineweb
import datatrove.pipeline.filters.gopher_quality_filter as gopher_quality
import datatrove.pipeline.filters.gopher_repetition_filter as gopher_repetition
import polars as pl
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_signals import count_sentences
from reference_signals import measure as reference

from headwater_data.characters import LIMIT, class_table, lower_table
from headwater_data.config import published_rules
from headwater_data.config.quality import Definitions
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
    "lorem_ipsum": "c4_lorem_ipsum", "curly_bracket": "c4_curly_brackets", "too_few_sentences": "c4_sentences",
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(topics, modules) -> list[str]:
    digits = [" ".join(f"{n:b}" for n in range(300)), "1 11 " * 3 + " ".join(["11", "1", "111", "1", "1", "11"] * 9)]
    short = [t[:300] for t in topics[:20]]
    lists = ["\n".join(f"- item {i % 3}" for i in range(n)) for n in (3, 20, 80)]
    dots = ["What is it about ...\n" * 30, "a b c d e " * 40, "# " * 60 + "the of and be " * 20, "x" * 3000]
    return [*topics, *modules, *digits, *short, *lists, *dots]


NAMES = list(REASONS.values())


@pytest.mark.parametrize(
    ("module", "peer", "own"),
    [
        (gopher_quality, gopher_quality.GopherQualityFilter, NAMES[:10]),
        (gopher_repetition, gopher_repetition.GopherRepetitionFilter, NAMES[10:23]),
        (fineweb, fineweb.FineWebQualityFilter, NAMES[23:27]),
        (c4, partial(c4.C4QualityFilter, filter_no_terminal_punct=False), NAMES[27:]),
    ],
    ids=["gopher quality", "gopher repetition", "fineweb", "c4"],
)
def test_decisions_and_reasons_equal_datatroves_given_the_same_words(monkeypatch, texts, module, peer, own):
    if module is c4:
        monkeypatch.setattr(module, "split_into_sentences", lambda text, language: [""] * count_sentences(text))
    else:
        monkeypatch.setattr(module, "split_into_words", lambda text, language: text.split())
    rules = {n: r for n, r in published_rules().items() if n in own}
    assert len(rules) == len(own)
    frame = measure(texts, Definitions(ngrams="letters")).with_columns(
        category=pl.lit("internet"), source=pl.lit("s"), language=pl.lit("en")
    )
    fired = verdicts(frame, rules)[1].to_dicts()
    rejected = 0
    for text, hits in zip(texts, fired, strict=True):
        verdict = peer().filter(Document(text=text, id="0"))
        theirs = None if verdict is True else verdict[1]
        ours = next((reason for reason, name in REASONS.items() if hits.get(name)), None)
        assert ours == theirs
        rejected += theirs is not None
    assert rejected >= 3  # the comparison saw both verdicts


# what the rules look at, and characters whose case, width or class is a trap
PIECES = st.sampled_from(
    ["the", "of", "and", "ab", "cd", " ", "  ", "\n", "\n\n", "\r\n", "\r", "\u2028", "\x1c", "\x85", "\u00a0",
     "...", "..", "…", "#", "-", "•", ".", "!", "?\"", ".)", "'", "[1]", "[edit]", "[citation needed]", "[", "]", "[٣]",
     "lorem ipsum", "LOREM  ipsum", "JavaScript", "{", "}", ";", "terms of use", "Privacy Policy", "coo\u212aie policy",
     "use cookies", "uses coo", "kies", "use of cookies", "１", "²", "½", "ß", "Σ", "İ", "ｗ", "語", "。", "🙂", "_",
     "\u3000", "x" * 1001]
)  # fmt: skip
ALTERNATIVES = [
    Definitions(duplicates=d, denominator=n, words=w, ngrams=g)
    for d in ("repeats", "all") for n in ("text", "words") for w in ("blanks", "punctuation")
    for g in ("words", "letters")
]  # fmt: skip


def assert_equal_to_reference(texts: list[str]) -> None:
    for text, row in zip(texts, measure(texts).to_dicts(), strict=True):
        assert row == pytest.approx(reference(text), rel=1e-12)


@given(st.lists(st.lists(PIECES | st.text(max_size=8), max_size=60).map("".join), min_size=1, max_size=3))
@settings(max_examples=250, deadline=None)
def test_compiled_loops_equal_the_definitions_for_any_text(texts):
    assert_equal_to_reference(texts)


@given(st.lists(st.sampled_from(["a", "b", "c d", "e\n"]), max_size=80).map(" ".join))
@settings(max_examples=150, deadline=None)
def test_compiled_loops_equal_the_definitions_where_ngrams_repeat(text):
    assert_equal_to_reference([text])


def test_compiled_loops_equal_the_definitions_on_real_texts(texts):
    assert_equal_to_reference(texts)


def test_character_tables_say_what_python_says_of_every_code_point():
    classes, lower = class_table(), lower_table()
    for point, c in enumerate(map(chr, range(sys.maxunicode + 1))):
        bits = int(classes[point]) if point < LIMIT else 0
        assert (bool(bits & 1), bool(bits & 4), bool(bits & 8)) == (c.isspace(), c.isalpha(), c.isalnum())
        assert bool(bits & 64) == c.isdecimal()
        assert bool(bits & 2) == (len(f"a{c}b".splitlines()) == 2)
        if c not in "İς":
            assert (chr(lower[point]) if point < LIMIT else c) == c.lower()


@pytest.mark.parametrize(
    "definitions", ALTERNATIVES, ids=lambda d: f"{d.words} {d.duplicates} {d.ngrams} {d.denominator}"
)
@given(text=st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=25, deadline=None)
def test_every_signal_is_a_finite_number_under_every_definition(definitions, text):
    row = measure([text], definitions).row(0, named=True)
    assert tuple(row) == SIGNALS
    assert all(0 <= value < float("inf") for value in row.values())


BOUNDS = """
import itertools, random
from headwater_data.config.quality import Definitions
from headwater_data.dedup.minhash import signatures
from headwater_data.quality.heuristics import measure
from headwater_data.words import ngram_hashes, word_stream
draw = random.Random(1)
texts = [c * n for c in ["\\n", ".", "a", " ", "a ", "\\n\\n.", "\\u0130", "{", "\\U0001f600"] for n in range(36)]
texts += ["".join(draw.choices("\\n\\n. a\\u0130{\\r", k=draw.randrange(60))) for _ in range(300)]
for words, ngrams in itertools.product(["blanks", "punctuation"], ["words", "letters"]):
    for text in texts:  # each alone: the arrays are made for the longest text
        measure([text], Definitions(words=words, ngrams=ngrams))
for batch in [[], texts, *([t] for t in texts)]:
    stream = word_stream(batch)
    for n in (1, 2, 13):
        ngram_hashes(stream, n)
    signatures(stream.hashes, stream.starts, 4, 1)
print("within", len(texts))
"""


def test_compiled_loops_stay_within_their_arrays(tmp_path):
    """Numba checks no index unless it is told to: a write past an array's end shows as a fault elsewhere, or not."""
    checked = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", BOUNDS], capture_output=True, text=True, env=checked)
    assert done.stdout.startswith("within"), done.stderr[-2000:]


def test_alternative_definitions_count_what_they_say():
    text = "one two, three\n" * 4
    assert measure([text])["gopher_duplicate_lines"][0] == 3 / 5  # the empty line at the end is one
    assert measure([text], Definitions(duplicates="all"))["gopher_duplicate_lines"][0] == 4 / 5
    assert measure([text], Definitions(words="punctuation"))["gopher_alpha_words"][0] == 3 / 4
    assert measure([text], Definitions(denominator="words"))["gopher_duplicate_line_chars"][0] == 3 * 14 / (4 * 12)
