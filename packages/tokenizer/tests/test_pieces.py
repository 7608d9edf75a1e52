"""The walk over bytes cuts text where tokenizers' regular expressions do."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from corpora import real_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from headwater_tokenizer.classes import class_table, of_tokenizers
from headwater_tokenizer.pieces import PATTERNS, count_words, split
from headwater_tokenizer.splits import split_pattern

ALPHABET = list("ab'sStTlLvVeErRmMdD 12\t\n\r\x0b.,!-_ſ’é中文٣½²\u00a0\u2028\u0085\u3000😀\u200dİʰ\u0301\x00\x1c")
texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(ALPHABET), max_size=40).map("".join))


def walked(text: str, pattern: str, digits: int) -> list[str]:
    data = text.encode()
    ends = split(np.frombuffer(data, np.uint8), 0, len(data), class_table(), PATTERNS[pattern], digits).tolist()
    return [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


def matched(text: str, pattern: str, digits: int) -> list[str]:
    found = pre_tokenizers.Split(Regex(split_pattern(pattern, digits)), "isolated").pre_tokenize_str(text)
    return [piece for piece, _ in found]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("digits", [0, 1, 2, 3])
@settings(max_examples=300)
@given(text=texts)
def test_pieces_are_those_of_the_regular_expression(pattern, digits, text):
    assert walked(text, pattern, digits) == matched(text, pattern, digits)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_code_points_of_every_class_are_cut_alike(pattern):
    """The first 12,288 and those at the ends of each run of a class, beside a letter, an apostrophe, a blank, a number
    and a mark; that all others have the classes of tokenizers is tested below."""
    edges = np.flatnonzero(np.diff(class_table()))
    points = sorted({*range(0x3000), *edges.tolist(), *(edges + 1).tolist()} - set(range(0xD800, 0xE000)))
    text = "".join(f"a{c}a'{c} {c}.{c}1{c}\n" for c in map(chr, points))
    assert walked(text, pattern, 2) == matched(text, pattern, 2)


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


BOUNDS = """
import random
from pathlib import Path
import sys
from headwater_tokenizer.encoder import Encoder
draw = random.Random(1)
encoder = Encoder(Path(sys.argv[1]))
marks = ["\\n", ".", "a", " ", "'", "\\u4e2d", "\\U0001f600", "1"]
texts = [c * n for c in marks for n in (0, 1, 2, 3, 7, 8, 9, 40, 5000)]
texts += ["".join(draw.choices("ab's 1\\n.\\u4e2d", k=draw.randrange(60))) for _ in range(300)]
for batch in [[], texts, *([t] for t in texts)]:
    encoder.encode(batch)
print("within")
"""


def test_compiled_loops_stay_within_their_arrays(tokenizer, tmp_path):
    checked = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", BOUNDS, tokenizer], capture_output=True, text=True, env=checked)
    assert done.stdout == "within\n", done.stderr[-2000:]
