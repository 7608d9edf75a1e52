"""The compiled Viterbi gives the ids of tokenizers' Unigram on any vocabulary, ties and all."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from headwater_tokenizer.byte_names import byte_entries
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.splits import RAW, split_pattern

ALPHABET = "ab é中😀\n"
CUTS = {
    "whole": None,
    "raw": pre_tokenizers.Split(Regex(RAW), "isolated"),
    "gpt4": pre_tokenizers.Split(Regex(split_pattern("gpt4", 2)), "isolated"),
}
short = st.text(ALPHABET, min_size=1, max_size=4)
scores = st.sampled_from([0.0, -1.0, -1.0, -2.0, -0.5, -12.0, 5.0]) | st.floats(-20, 3)
entries = st.lists(st.tuples(short, scores), min_size=1, max_size=24)
texts = st.lists(st.text(ALPHABET, max_size=40) | st.text(max_size=20), max_size=5)


@st.composite
def vocabularies(draw) -> dict:
    """Repeated entries, an unknown token that is an ordinary one, all, some or no bytes; scores that tie."""
    vocabulary = draw(entries)
    first = byte_entries() if draw(st.booleans()) else draw(st.lists(st.sampled_from(byte_entries()), max_size=9))
    vocabulary += [(name, draw(scores)) for name in first[:1]] + [(name, -9.0) for name in first[1:]]
    return {
        "vocab": vocabulary,
        "unk_id": draw(st.integers(0, len(vocabulary) - 1)),
        "byte_fallback": draw(st.booleans()),
    }


def both(tokenizer: Tokenizer, folder) -> tuple[Encoder, Encoder]:
    tokenizer.save(str(folder / "tokenizer.json"))
    fast, slow = Encoder(folder), Encoder(folder, "tokenizers")
    assert (fast.engine, slow.engine) == ("compiled", "tokenizers")
    return fast, slow


def assert_same(engines, documents) -> None:
    for ours, theirs in zip(*(engine.encode(documents) for engine in engines), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unigram")


@settings(max_examples=400)
@given(vocabularies(), st.sampled_from(sorted(CUTS)), texts)
def test_ids_are_those_of_tokenizers_on_any_vocabulary(folder, vocabulary, cut, documents):
    tokenizer = Tokenizer(models.Unigram(**vocabulary))
    if CUTS[cut] is not None:
        tokenizer.pre_tokenizer = CUTS[cut]
    assert_same(both(tokenizer, folder), documents)


def test_scores_are_those_that_tokenizers_reads_from_the_file(folder):
    """Its JSON reader takes some numbers for a neighbouring one, which decides between cuts that are as likely."""
    draw = random.Random(3)
    letters = [chr(97 + i) for i in range(12)]
    vocabulary = [(letter, -draw.random() * 20) for letter in letters]
    whole = [(a + b, vocabulary[i][1] + vocabulary[j][1]) for i, a in enumerate(letters) for j, b in enumerate(letters)]
    tokenizer = Tokenizer(models.Unigram([*vocabulary, *whole, ("?", -50.0)], 156, False))
    fast, slow = both(tokenizer, folder)
    read = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    held = json.loads(fast._slow.to_str())["model"]["vocab"]
    assert sum(a != b for a, b in zip(read, held, strict=True)) > 10
    assert_same((fast, slow), ["".join(draw.choices(letters, k=200)) for _ in range(50)])


def test_a_tokenizer_without_unknown_token_is_left_to_tokenizers(folder):
    Tokenizer(models.Unigram([("a", 0.0)], None, False)).save(str(folder / "tokenizer.json"))
    assert Encoder(folder).engine == "tokenizers"
