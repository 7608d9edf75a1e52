"""The compiled merging gives the ids of tokenizers' BPE on any merges, over bytes and over characters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_unigram import assert_same, both
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.splits import RAW, split_pattern

ALPHABET = "ab é中😀\n\u2581"
CUTS = {
    "whole": None,
    "raw": pre_tokenizers.Split(Regex(RAW), "isolated"),
    "gpt2": pre_tokenizers.Split(Regex(split_pattern("gpt2", 0)), "isolated"),
    "marked": pre_tokenizers.Split("\u2581", "merged_with_next"),
}
texts = st.lists(st.text(ALPHABET, max_size=90) | st.text(max_size=20), max_size=5)


@st.composite
def merged(draw, symbols: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of the symbols and some entries made of them; some of the pairs that make one, in any order."""
    made = draw(st.lists(st.lists(st.sampled_from(symbols), min_size=2, max_size=5).map("".join), max_size=20))
    names = draw(st.permutations(list(dict.fromkeys([*symbols, *made]))))
    pairs = [(name[:at], name[at:]) for name in names for at in range(1, len(name))]
    pairs = [pair for pair in pairs if pair[0] in names and pair[1] in names]
    return dict(zip(names, range(len(names)), strict=True)), draw(st.permutations(pairs))[: draw(st.integers(0, 60))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bpe")


@settings(max_examples=300)
@given(st.data(), st.sampled_from(sorted(CUTS)), st.booleans(), st.booleans(), st.booleans(), texts)
def test_ids_over_characters_are_those_of_tokenizers(folder, data, cut, fuse, fallback, whole_first, documents):
    known = data.draw(st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=7, unique=True))
    vocabulary, merges = data.draw(merged(known))
    first = byte_entries() if data.draw(st.booleans()) else data.draw(st.lists(st.sampled_from(byte_entries())))
    for name in [*first, *(["<unk>"] if data.draw(st.booleans()) else [])]:
        vocabulary.setdefault(name, len(vocabulary))
    model = models.BPE(
        vocabulary, merges, unk_token="<unk>" if "<unk>" in vocabulary else None, fuse_unk=fuse,
        byte_fallback=fallback, ignore_merges=whole_first,
    )  # fmt: skip
    tokenizer = Tokenizer(model)
    if CUTS[cut] is not None:
        tokenizer.pre_tokenizer = CUTS[cut]
    assert_same(both(tokenizer, folder), documents)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["whole", "gpt2"]), st.booleans(), texts)
def test_ids_over_bytes_are_those_of_tokenizers(folder, data, cut, whole_first, documents):
    names = {byte: character for character, byte in bytes_of_characters().items()}
    known = sorted({names[byte] for byte in "ab é中😀".encode()})
    vocabulary, merges = data.draw(merged(known))
    for name in names.values():
        vocabulary.setdefault(name, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole_first))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut == "gpt2")
    assert_same(both(tokenizer, folder), documents)


def test_a_long_word_is_merged_like_a_short_one_leftmost_first(folder):
    """Past the length from which a heap is used, with runs whose pairs overlap."""
    vocabulary = {name: i for i, name in enumerate(["a", "b", "aa", "aaa", "aaaa", "ab", "ba"])}
    merges = [("a", "a"), ("aa", "a"), ("aa", "aa"), ("a", "b"), ("b", "a")]
    engines = both(Tokenizer(models.BPE(vocabulary, merges)), folder)
    assert_same(engines, ["a" * n + "b" * (n % 3) + "a" * (n % 5) for n in range(120)])
    assert_same(engines, ["a" * 100_001, "ab" * 50_000, "aab" * 40_000])
    assert engines[0].encode(["aaaaab"])[0].tolist() == [2, 3, 1]
