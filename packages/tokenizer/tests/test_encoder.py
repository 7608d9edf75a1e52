"""The compiled loops give the ids of Hugging Face tokenizers, whatever the text and the algorithm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from corpora import real_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from headwater_tokenizer import piece_cache
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.algorithms import learn
from headwater_tokenizer.config import TrainConfig
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
    "aB\u2581c <0x0A> \u1e9b\u0323 \u00c5\u212b \u0130 \uac01 \ufb01 \u03a3\u03a3 \u2581\u2581",
    "  \n \n\n  x\r\n   y ",
]
ALGORITHMS = {
    "unigram": {"vocab_size": 700},
    "unigram, nfc": {"vocab_size": 700, "normalization": "nfc"},
    "unigram, unknown": {"vocab_size": 500, "byte_fallback": False, "algorithm": "unigram"},
    "sentencepiece-unigram": {"vocab_size": 700},
    "sentencepiece-bpe": {"vocab_size": 700},
    "sentencepiece-bpe, unknown": {"vocab_size": 500, "byte_fallback": False},
    "characters": {"vocab_size": 362},
    "characters, unknown": {"vocab_size": 104, "byte_fallback": False, "normalization": "nfd"},
    "bytes": {},
    "bytes, lower case": {"lowercase": True, "normalization": "nfkd"},
    "bpe, by script": {"vocab_size": 500, "scripts": True, "split": "gpt2", "digits": 0},
    "bpe, normalised": {"vocab_size": 500, "normalization": "nfkc", "lowercase": True},
}
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    """Of each of ALGORITHMS a tokenizer learned from the real documents."""
    whole = tmp_path_factory.mktemp("algorithms")
    texts = [pa.array([text for _, text, _ in real_documents()], pa.large_string())]
    for name, values in ALGORITHMS.items():
        (whole / name).mkdir()
        config = TrainConfig(**{"algorithm": name.partition(",")[0], "reserved": 4, **values})
        learn(texts, config).save(str(whole / name / "tokenizer.json"))
    return {name: whole / name for name in ALGORITHMS}


@settings(max_examples=300)
@given(st.lists(texts, max_size=4))
def test_ids_are_those_of_tokenizers_on_any_text(tokenizer, documents):
    assert_same(tokenizer, documents)


def test_ids_are_those_of_tokenizers_on_adversarial_strings_and_real_documents(tokenizer):
    assert_same(tokenizer, [*ADVERSARIAL, *(text for _, text, _ in real_documents())])


@settings(max_examples=60)
@given(documents=st.lists(texts, max_size=4))
def test_every_algorithm_gives_the_ids_of_tokenizers_on_any_text(folders, documents):
    for folder in folders.values():
        assert_same(folder, documents)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_gives_the_ids_of_tokenizers_on_adversarial_strings_and_real_documents(folders, name):
    assert_same(folders[name], [*ADVERSARIAL, *(text for _, text, _ in real_documents())])


def test_a_text_without_a_cut_takes_no_square_of_its_length(tokenizer, folders):
    documents = ["before", "a" + " " * 400_000 + "b", "-" * 300_000, "x" * 5000, "汉" * 3000, "", "after"]
    for folder in (tokenizer, folders["unigram"], folders["sentencepiece-bpe"]):
        assert_same(folder, documents)
        fast, slow = both(folder)
        ids, lengths = fast.encode_column(pa.array(documents, pa.large_string()), end=3)
        expected = [np.append(part, 3) for part in slow.encode(documents)]
        np.testing.assert_array_equal(ids, np.concatenate(expected))
        assert lengths.tolist() == list(map(len, expected))


def test_a_slice_of_a_column_is_encoded_as_itself(tokenizer):
    fast, _ = both(tokenizer)
    column = pa.array(["one", "two three", "", "four"], pa.large_string())
    ids, lengths = fast.encode_column(column[1:3])
    assert lengths.tolist() == [len(ids), 0] and np.array_equal(ids, fast.encode(["two three"])[0])


@pytest.mark.parametrize(("slots", "pool", "name"), [(64, 1 << 20, "bpe"), (64, 1 << 20, "unigram"), (4096, 50, "bpe")])
def test_a_full_cache_of_pieces_goes_on_without_new_ones(tokenizer, folders, monkeypatch, slots, pool, name):
    folder = folders.get(name, tokenizer)
    monkeypatch.setattr(piece_cache, "SLOTS", slots)
    monkeypatch.setattr(piece_cache, "POOL", pool)
    small = Encoder(folder)
    documents = [text for _, text, _ in real_documents()[:40]]
    for ours, theirs in zip(small.encode(documents), both(folder)[0].encode(documents), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    used, words = small._cache.used.tolist()
    assert used == 32 if slots == 64 else 40 < words <= 50


BOUNDS = """
import random, sys
from pathlib import Path
from headwater_tokenizer.encoder import Encoder
draw = random.Random(1)
marks = ["\\n", ".", "a", " ", "'", "\\u4e2d", "\\U0001f600", "1"]
texts = [c * n for c in marks for n in (0, 1, 2, 3, 7, 8, 9, 16, 40, 255, 256, 5000)]
texts += ["".join(draw.choices("ab's 1\\n.\\u4e2d", k=draw.randrange(60))) for _ in range(300)]
for folder in sys.argv[1:]:
    encoder = Encoder(Path(folder))
    assert encoder.engine == "compiled"
    for batch in [[], texts, *([t] for t in texts)]:
        encoder.encode(batch)
print("within")
"""


def test_compiled_loops_stay_within_their_arrays(tokenizer, folders, tmp_path):
    checked = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    some = ("unigram", "unigram, unknown", "sentencepiece-bpe", "characters", "bytes")
    command = [sys.executable, "-c", BOUNDS, tokenizer, *(folders[name] for name in some)]
    done = subprocess.run(command, capture_output=True, text=True, env=checked)
    assert done.stdout == "within\n", done.stderr[-2000:]


def test_two_long_pieces_of_equal_hash_are_told_apart():
    """As someone might make them: both 64-bit hashes can be reckoned backwards."""
    from numba import njit

    @njit
    def found(cache, data, start, size):
        return piece_cache.find(cache, np.uint64(7), np.uint64(9), data, start, size)

    cache = piece_cache.new_cache()
    data = np.frombuffer(b"the weir of the riverthe dams of the riverthe weir", np.uint8)
    at = found(cache, data, 0, 21)
    piece_cache.keep(cache, at, np.uint64(7), np.uint64(9), data, 0, 21, np.array([5], np.int32), 1)
    assert found(cache, data, 0, 21) == at
    assert found(cache, data, 21, 21) != at and found(cache, data, 0, 20) != at


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


def changed(tokenizer, change) -> Tokenizer:
    loaded = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    change(loaded)
    return loaded


UNKNOWN_TO_THE_LOOPS = {
    "a token that is matched in text": lambda t: t.add_tokens([AddedToken("weir")]),
    "another split": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Split(Regex("[aeiou]"), "isolated")),
    "another behaviour": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Split("\u2581", "removed")),
    "dropout": lambda t: setattr(t.model, "dropout", 0.5),
    "an end of words": lambda t: setattr(t.model, "end_of_word_suffix", "</w>"),
}


@pytest.mark.parametrize("name", UNKNOWN_TO_THE_LOOPS)
def test_a_tokenizer_that_the_loops_cannot_express_is_encoded_by_tokenizers(tokenizer, tmp_path, name):
    changed(tokenizer, UNKNOWN_TO_THE_LOOPS[name]).save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(tmp_path)
    assert encoder.engine == "tokenizers"
    column = pa.array(["the weir", "", "a river"], pa.large_string())
    ids, lengths = encoder.encode_column(column, end=2)
    assert lengths.sum() == len(ids) and ids[np.cumsum(lengths) - 1].tolist() == [2, 2, 2]


def test_any_normaliser_is_applied_before_the_loops(tokenizer, tmp_path):
    steps = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Prepend("\u2581"), normalizers.Replace("e", "é")]
    other = changed(tokenizer, lambda t: setattr(t, "normalizer", normalizers.Sequence(steps)))
    other.save(str(tmp_path / "tokenizer.json"))
    assert_same(tmp_path, ["the   weir", "", "\u00e9", "plain"])


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
    encoder._fast.symbols.bytes[:] = encoder._fast.symbols.bytes[::-1].copy()
    assert not encoder.compare_engines(["some text"])
    np.testing.assert_array_equal(encoder.encode(["some text"])[0], both(tokenizer)[1].encode(["some text"])[0])


@pytest.mark.parametrize("name", ["bpe", "bytes", "unigram", "sentencepiece-bpe", "characters", "unigram, unknown"])
def test_a_column_is_decoded_as_each_document_is(tokenizer, folders, name):
    encoder = both(folders.get(name, tokenizer))[0]
    documents = [*ADVERSARIAL, "<|endoftext|>", *(text for _, text, _ in real_documents()[:60])]
    ids, lengths = encoder.encode_column(pa.array(documents, pa.large_string()), end=encoder.id_of("<|pad|>"))
    decoded = encoder.decode_column(ids, lengths).to_pylist()
    assert decoded == [encoder.decode(part) for part in np.split(ids, np.cumsum(lengths)[:-1])]
    if name != "unigram, unknown":
        assert decoded == [text + "<|pad|>" for text in documents]
    assert encoder.decode_column(ids[:0], lengths[:0]).to_pylist() == []
    with pytest.raises(UserError, match="the tokenizer has only"):
        encoder.decode_column(np.array([encoder.vocab_size]), np.array([1]))


@settings(max_examples=100)
@given(data=st.data())
def test_ids_that_are_no_whole_characters_are_decoded_as_tokenizers_does(tokenizer, folders, data):
    encoder = both(folders[data.draw(st.sampled_from(["unigram", "characters", "bytes"]))])[0]
    documents = data.draw(st.lists(st.lists(st.integers(0, encoder.vocab_size - 1), max_size=8), max_size=4))
    ids = np.array([id_ for document in documents for id_ in document], np.int32)
    decoded = encoder.decode_column(ids, np.array([len(document) for document in documents], np.int64))
    assert decoded.to_pylist() == [encoder.decode(np.array(document, np.int32)) for document in documents]


def test_ids_beyond_sixteen_bits_are_stored_in_thirty_two(tokenizer, tmp_path):
    grown = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    grown.add_special_tokens([f"<|filler_{i}|>" for i in range(65_499 - grown.get_vocab_size())])
    grown.save(str(tmp_path / "tokenizer.json"))
    assert Encoder(tmp_path).dtype == np.uint16
    grown.add_special_tokens(["<|one_more|>"])
    grown.save(str(tmp_path / "tokenizer.json"))
    assert Encoder(tmp_path).dtype == np.int32


def test_ids_that_no_token_file_holds_are_refused_with_the_number(tmp_path):
    vocabulary = {"a": 0, "b": 2**31}
    described = {"version": "1.0", "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"tokenizer.json: ids up to 2147483648, but .* hold 0 to 2147483647"):
        Encoder(tmp_path)


def test_a_folder_without_a_readable_tokenizer_is_one_line(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Encoder(tmp_path)
    shutil.copy(tokenizer / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text()[:5000])
    with pytest.raises(UserError, match="not readable as a tokenizer") as fault:
        Encoder(tmp_path)
    assert "\n" not in str(fault.value)
