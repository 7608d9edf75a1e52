"""The walk over bytes cuts text where tokenizers' regular expressions do."""

from __future__ import annotations

import numpy as np
import pytest
from corpora import real_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from headwater_tokenizer.classes import class_table, of_tokenizers
from headwater_tokenizer.compiled import KNOWN
from headwater_tokenizer.pieces import BY_SCRIPT, MARKED, PATTERNS, RAW, WHOLE, count_words, split
from headwater_tokenizer.splits import RAW as RAW_PATTERN
from headwater_tokenizer.splits import split_pattern

ALPHABET = list(
    "ab'sStTlLvVeErRmMdDпЖλאकซꙂ 12\t\n\r\x0b.,!-_ſ’é中文٣½²\u00a0\u2028\u0085\u3000😀\u200dİʰ\u0301\x00\x1c"
)
texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(ALPHABET), max_size=40).map("".join))


def walked(text: str, pattern: str | int, digits: int, scripts: bool = False) -> list[str]:
    number = pattern if isinstance(pattern, int) else PATTERNS[pattern] | (BY_SCRIPT if scripts else 0)
    data = text.encode()
    ends = split(np.frombuffer(data, np.uint8), 0, len(data), class_table(), number, digits).tolist()
    return [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


def matched(text: str, pattern: str, digits: int, scripts: bool = False) -> list[str]:
    found = pre_tokenizers.Split(Regex(split_pattern(pattern, digits, scripts)), "isolated").pre_tokenize_str(text)
    return [piece for piece, _ in found]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("digits", [0, 1, 2, 3])
@settings(max_examples=300)
@given(text=texts, scripts=st.booleans())
def test_pieces_are_those_of_the_regular_expression(pattern, digits, text, scripts):
    assert walked(text, pattern, digits, scripts) == matched(text, pattern, digits, scripts)


@settings(max_examples=300)
@given(text=st.text(" \n\ra\u2581\u2582é", max_size=30) | texts)
def test_pieces_of_the_raw_stream_are_those_of_its_expression_and_marked_ones_begin_with_the_mark(text):
    for number, cut in (
        (RAW, pre_tokenizers.Split(Regex(RAW_PATTERN), "isolated")),
        (MARKED, pre_tokenizers.Split("\u2581", "merged_with_next")),
    ):
        assert walked(text, number, 0) == [piece for piece, _ in cut.pre_tokenize_str(text)]
    assert walked(text, WHOLE, 0) == ([text] if text else [])


@settings(max_examples=300)
@given(text=texts)
def test_the_split_as_other_tokenizers_write_it_is_cut_alike(text):
    others = [expression for expression in KNOWN if expression.startswith("(?i:'s|")]  # Llama 3, Qwen 2
    assert len(others) == 2
    for expression in others:
        pattern, digits = KNOWN[expression]
        cut = pre_tokenizers.Split(Regex(expression), "isolated")
        assert walked(text, pattern, digits) == [piece for piece, _ in cut.pre_tokenize_str(text)]


def test_letters_of_two_scripts_are_cut_apart_and_japanese_is_one():
    assert walked("Hello Миръabc データ入力API한국어", "gpt4", 2, scripts=True) == [
        "Hello", " Миръ", "abc", " データ入力", "API", "한국어",
    ]  # fmt: skip
    assert walked("Миръabc", "gpt4", 2) == ["Миръabc"]


@pytest.mark.parametrize("scripts", [False, True])
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_code_points_of_every_class_are_cut_alike(pattern, scripts):
    """The first 12,288 and those at the ends of each run of a class, beside a letter, an apostrophe, a blank, a number
    and a mark; that all others have the classes of tokenizers is tested below."""
    edges = np.flatnonzero(np.diff(class_table()))
    points = sorted({*range(0x3000), *edges.tolist(), *(edges + 1).tolist()} - set(range(0xD800, 0xE000)))
    text = "".join(f"a{c}a'{c} {c}.{c}1{c}\n" for c in map(chr, points))
    assert walked(text, pattern, 2, scripts) == matched(text, pattern, 2, scripts)


def test_real_texts_are_cut_alike():
    for _, text, _ in real_documents():
        for pattern in PATTERNS:
            assert walked(text, pattern, 2) == matched(text, pattern, 2)


def test_the_table_of_classes_is_that_of_the_installed_tokenizers():
    np.testing.assert_array_equal(class_table(), of_tokenizers())


@given(st.lists(texts, max_size=5))
def test_words_are_runs_without_white_space(documents):
    data = [text.encode() for text in documents]
    offsets = np.cumsum([0, *map(len, data)])
    counts = count_words(np.frombuffer(b"".join(data), np.uint8), offsets, class_table())
    blanks = "".join(chr(i) for i in np.flatnonzero(class_table() & 4))
    for text, count in zip(documents, counts.tolist(), strict=True):
        assert count == len("".join(" " if c in blanks else "x" for c in text).split())
