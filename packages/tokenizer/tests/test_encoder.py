"""The fast engine gives the ids of Hugging Face tokenizers, whatever the text."""

from __future__ import annotations

import json
import shutil
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from corpora import real_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from headwater_tokenizer import bpe
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.special import NAMED

ADVERSARIAL = [
    "",
    " ",
    " " * 4000 + "x",
    "a" * 5000,
    "ab" * 2500,
    "\r\n\t \x0b\x0c\x85\u2028 \n" * 20,
    "\x00\x01\x7f\ufffe\uffff\U0010ffff",
    "👩‍👩‍👧‍👦🏳️‍🌈🇫🇷" * 30,
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢",
    "१२३४५ ٣٤٥ ⅷ ²³ 1234567890",
    "I'LL I'll it'S 'tis ''''sss",
    "汉字假名ひらがなカタカナ한국어ไทยภาษา हिन्दी",
    "\u200b\u200e\u202e\u00ad\ufeff",
]
pieces = st.sampled_from(
    [*ADVERSARIAL[1:2], *NAMED, "the", "The", " weir", "'ll", "12", "\n\n", "  ", "é", "é", "\u3000"]
)
texts = st.one_of(st.text(max_size=300), st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=40).map("".join))


@cache
def both(folder) -> tuple[Encoder, Encoder]:
    fast, slow = Encoder(folder), Encoder(folder, "tokenizers")
    assert (fast.engine, slow.engine) == ("compiled", "tokenizers")
    return fast, slow


def assert_same(folder, documents):
    fast, slow = both(folder)
    for ours, theirs in zip(fast.encode(documents), slow.encode(documents), strict=True):
        assert ours.dtype == theirs.dtype == np.uint16
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=300)
@given(st.lists(texts, max_size=4))
def test_ids_are_those_of_tokenizers_on_any_text(tokenizer, documents):
    assert_same(tokenizer, documents)


def test_ids_are_those_of_tokenizers_on_adversarial_strings_and_real_documents(tokenizer):
    assert_same(tokenizer, [*ADVERSARIAL, *(text for _, text, _ in real_documents())])


def test_a_piece_too_long_for_the_compiled_loops_is_encoded_all_the_same(tokenizer):
    fast, slow = both(tokenizer)
    documents = ["before", "a" + " " * 1_500_000 + "b", "x" * 5000, "汉" * 3000, "", "after"]
    for ours, theirs in zip(fast.encode(documents), slow.encode(documents), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    column = pa.array(documents, pa.large_string())
    for engine in (fast, slow):
        ids, lengths = engine.encode_column(column, end=3)
        assert lengths.sum() == len(ids) and ids.dtype == engine.dtype
        np.testing.assert_array_equal(ids, np.concatenate([np.append(i, 3) for i in slow.encode(documents)]))


def test_a_slice_of_a_column_is_encoded_as_itself(tokenizer):
    fast, _ = both(tokenizer)
    column = pa.array(["one", "two three", "", "four"], pa.large_string())
    ids, lengths = fast.encode_column(column[1:3])
    assert lengths.tolist() == [len(ids), 0] and np.array_equal(ids, fast.encode(["two three"])[0])


def test_a_full_table_of_pieces_goes_on_without_new_ones(tokenizer, monkeypatch):
    monkeypatch.setattr(bpe, "SLOTS", 64)
    monkeypatch.setattr(bpe, "POOL", 50)
    small = Encoder(tokenizer)
    documents = [text for _, text, _ in real_documents()[:40]]
    for ours, theirs in zip(small.encode(documents), both(tokenizer)[0].encode(documents), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert small._fast is not None and small._fast.cache.used[0] <= 32 and small._fast.cache.used[1] <= 50


def test_a_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(UnicodeEncodeError):
        both(tokenizer)[0].encode(["\ud800"])


def test_special_tokens_written_in_a_text_are_ordinary_text(tokenizer):
    names = [*NAMED, "<|reserved_0|>"]
    loaded = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    special = {loaded.token_to_id(name) for name in names}
    for engine in both(tokenizer):
        for name in names:
            ids = engine.encode([f"before{name}after"])[0]
            assert not special & set(ids.tolist())
            assert loaded.decode(ids.tolist(), skip_special_tokens=True) == f"before{name}after"


def test_a_tokenizer_that_the_fast_engine_cannot_express_is_encoded_by_tokenizers(tokenizer, tmp_path):
    changed = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    changed.normalizer = normalizers.NFC()
    changed.save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(tmp_path)
    assert encoder.engine == "tokenizers"
    assert encoder.encode(["e\u0301"])[0].tolist() == encoder.encode(["é"])[0].tolist()


def test_ids_that_are_not_merge_ranks_are_translated(tokenizer, tmp_path):
    """A vocabulary laid out otherwise, as GPT-2's is: the same tokens under other ids."""
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    last = len(vocabulary) - 1
    content["model"]["vocab"] = {token: last - number for token, number in vocabulary.items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    fast, slow = both(tmp_path)
    documents = [text for _, text, _ in real_documents()[:40]]
    for ours, theirs, plain in zip(*(e.encode(documents) for e in (fast, slow, both(tokenizer)[0])), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, last - plain)


def test_a_difference_between_the_engines_is_found_and_the_slower_one_used(tokenizer):
    encoder = Encoder(tokenizer)
    encoder._fast.merges.byte_ids[:] = encoder._fast.merges.byte_ids[::-1].copy()
    assert not encoder.compare_engines(["some text"])
    np.testing.assert_array_equal(encoder.encode(["some text"])[0], both(tokenizer)[1].encode(["some text"])[0])


def test_ids_beyond_sixteen_bits_are_stored_in_thirty_two(tokenizer, tmp_path):
    grown = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    grown.add_special_tokens([f"<|filler_{i}|>" for i in range(65_499 - grown.get_vocab_size())])
    grown.save(str(tmp_path / "tokenizer.json"))
    assert Encoder(tmp_path).dtype == np.uint16
    grown.add_special_tokens(["<|one_more|>"])
    grown.save(str(tmp_path / "tokenizer.json"))
    assert Encoder(tmp_path).dtype == np.int32


def test_a_folder_without_a_readable_tokenizer_is_one_line(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Encoder(tmp_path)
    shutil.copy(tokenizer / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text()[:5000])
    with pytest.raises(UserError, match="not readable as a tokenizer") as fault:
        Encoder(tmp_path)
    assert "\n" not in str(fault.value)
