"""Spelling probes: by hand on a tokenizer with two merges, and at the ends of the scale."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import bytes_of_characters
from headwater_tokenizer.compare.spelling import WORDS, longest_common, probe, probes_of
from headwater_tokenizer.encoder import Encoder


def encoder(folder, model, pre_tokenizer, decoder=None) -> Encoder:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.save(str(folder / "tokenizer.json"))
    return Encoder(folder)


def byte_level(folder, merges) -> Encoder:
    tokens = [*sorted(bytes_of_characters()), *(a + b for a, b in merges)]
    model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    return encoder(folder, model, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


@pytest.fixture(scope="module")
def two_merges(tmp_path_factory) -> Encoder:
    return byte_level(tmp_path_factory.mktemp("two"), [("a", "n"), ("Ġ", "b")])


@pytest.fixture(scope="module")
def single_bytes(tmp_path_factory) -> Encoder:
    return byte_level(tmp_path_factory.mktemp("none"), [])


def test_banana_by_hand(two_merges):
    (found,) = probes_of(two_merges, ["banana"])
    assert (found.tokens, found.hidden, found.unknown) == ([" b", "an", "an", "a"], 2, 0)
    assert found.kept == pytest.approx({
        "dropped": 3 / 4,  # whichever is dropped, one token of four is gone
        "doubled": 1.0,  # the other letter stands beside its token
        "swapped": (2 + 3 + 3 + 3 + 3) / 20,  # " a b n an a" keeps two, the others three
        "capitalised": 3 / 4,
        "capitals": 0.0,
        "no_blank": 3 / 4,
    })  # fmt: skip
    assert found.countable == pytest.approx(1 / 3)  # b; a and n stand in `an`, too
    assert (found.asked, found.asked_countable) == ("a", False)
    assert found.spelled == [" b", "a", "n", "a", "n", "a"] and found.letter_each


def test_shares_are_of_all_letters_and_words(two_merges):
    found = probe(two_merges, ["banana", "b", "no"])
    assert (found["words"], found["letters"], found["tokens"]) == (3, 9, 7)
    assert found["hidden_share"] == pytest.approx(2 / 9) and found["whole_words_share"] == pytest.approx(1 / 3)
    assert found["countable_share"] == pytest.approx((1 + 1 + 2) / (3 + 1 + 2))
    assert found["asked_countable_share"] == pytest.approx(2 / 3)
    assert found["kept"]["dropped"] == pytest.approx((3 / 4 + 1 / 2) / 2)  # b without its letter is no word


@given(word=st.text("abcdefgANZ", min_size=1, max_size=12))
def test_single_bytes_hide_no_letter(single_bytes, word):
    found = probe(single_bytes, [word])
    assert found["hidden_share"] == 0 and found["tokens"] == found["letters"] == len(word)
    assert found["countable_share"] == found["asked_countable_share"] == found["letter_each_share"] == 1
    assert found["kept"]["no_blank"] == found["kept"]["doubled"] == 1


def test_an_unknown_token_hides_all_letters_and_equals_none(tmp_path):
    model = models.WordLevel({"[U]": 0, "weir": 1, "a": 2}, unk_token="[U]")
    found = probe(encoder(tmp_path, model, pre_tokenizers.WhitespaceSplit()), ["weir", "dam"])
    assert found["hidden_share"] == (3 + 3) / 7 and found["whole_words_share"] == 1 / 2
    assert found["kept"]["no_blank"] == 1 / 2 and found["kept"]["dropped"] == found["kept"]["capitals"] == 0
    assert found["letter_each_share"] == 0 and found["examples"][1]["unknown"] == 1


def test_a_letter_cut_into_bytes_is_not_hidden(two_merges):
    (found,) = probes_of(two_merges, ["béan"])
    assert found.tokens == [" b", "\\xc3", "\\xa9", "an"] and found.hidden == 1 and not found.letter_each


@given(st.text("ab", max_size=7), st.text("ab", max_size=7))
def test_the_longest_common_subsequence_is_that_of_trying_all(one, other):
    every = {tuple(c for i, c in enumerate(one) if mask >> i & 1) for mask in range(1 << len(one))}
    rest = [sub for sub in every if _is_in(sub, other)]
    assert longest_common([ord(c) for c in one], [ord(c) for c in other]) == max(map(len, rest))


def _is_in(sub, text) -> bool:
    left = iter(text)
    return all(c in left for c in sub)


@pytest.mark.parametrize("words", [[], [""], ["two words"]])
def test_what_is_no_word_is_refused(single_bytes, words):
    with pytest.raises(UserError):
        probe(single_bytes, words)


def test_the_words_are_words():
    assert len(set(WORDS)) == len(WORDS) and all(word.isalpha() and len(word) > 1 for word in WORDS)
