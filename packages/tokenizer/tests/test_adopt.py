"""Tokenizers of others keep their ids."""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache

import numpy as np
import pytest
import sentencepiece
from corpora import real_documents
from foreign import BYTES, publish, rank_file
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.adopt import from_ranks, from_sentencepiece, merges_of
from headwater_tokenizer.byte_names import bytes_of_characters
from headwater_tokenizer.cli import main
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.sources import read_file
from headwater_tokenizer.special import NAMED

TEXTS = [
    "", " ", "a  b\tc\r\n\r\n  d", "naïve “ſ” Ünder", "水門と堰 水門", "плотина и шлюз", "سد 12345",
    "👩\u200d👩\u200d👧 ok", "<s>|</s>",
]  # fmt: skip


def adopt(tmp_path, name: str, content: bytes, *more, source="foreign", packed=False, file=None):
    sources = publish(tmp_path / "sources", {name: content}, packed=packed)
    out = tmp_path / "adopted"
    arguments = ["adopt", "--in", str(sources), "--out", str(out), "--work", str(tmp_path / "work")]
    settings = ["--set", f"source={source}", "--set", f"file={file or name}", *more]
    return main([*arguments, *settings]), out


def tiktoken_ids(piece: bytes, rank: dict[bytes, int]) -> list[int]:
    """tiktoken's own rule for one piece: as a whole if it can be, else the neighbours of the lowest rank first."""
    if piece in rank:
        return [rank[piece]]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        pairs = [(rank[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in rank]
        if not pairs:
            return [rank[part] for part in parts]
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@settings(max_examples=300)
@given(
    st.lists(st.binary(min_size=2, max_size=6).map(lambda b: bytes(97 + x % 3 for x in b)), unique=True, max_size=20),
    st.text("abc", max_size=25),
)
def test_any_ranks_give_the_ids_that_merging_by_rank_gives(more, text):
    tokens = [*BYTES, *more]
    merges, others = merges_of(tokens)
    assume(all(sum(left + right == token for left, right in merges) <= 1 for token in others))
    adopted = from_ranks(rank_file(tokens), "gpt2", 0)
    expected = tiktoken_ids(text.encode(), {token: i for i, token in enumerate(tokens)}) if text else []
    assert adopted.encode(text, add_special_tokens=False).ids == expected


def test_an_entry_that_only_later_ones_make_gets_every_cut():
    letters = [b"a", b"b", b"c"]
    assert merges_of([*letters, b"ab", b"abc"]) == ([(b"a", b"b"), (b"ab", b"c")], [])
    every = [(b"a", b"bc"), (b"ab", b"c"), (b"a", b"b"), (b"b", b"c")]
    assert merges_of([*letters, b"abc", b"ab", b"bc"]) == (every, [b"abc"])


def test_ranks_of_learned_tokens_give_back_the_merges_that_were_learned_and_the_compiled_engine(tokenizer, tmp_path):
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    byte_of = bytes_of_characters()
    tokens = [bytes(byte_of[c] for c in name) for name in sorted(model["vocab"], key=model["vocab"].__getitem__)]
    code, out = adopt(tmp_path, "own.tiktoken", rank_file(tokens), "--set", "digits=2", packed=True)
    assert code == 0
    adopted = json.loads((out / "tokenizer.json").read_text())["model"]
    assert (adopted["merges"], adopted["vocab"]) == (model["merges"], model["vocab"])
    ours, theirs = Encoder(out), Encoder(tokenizer)
    assert ours.engine == "compiled"
    texts = TEXTS + [text for _, text, _ in real_documents()[:40]]
    assert all(map(np.array_equal, ours.encode(texts), theirs.encode(texts)))


def test_added_ids_follow_the_highest_and_begin_with_the_end_of_a_document(tmp_path):
    code, out = adopt(tmp_path, "few.tiktoken", rank_file([*BYTES, b"ab"]), "--set", "pad_to=100")
    assert code == 0
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded.token_to_id("<|endoftext|>") == 257
    assert [loaded.id_to_token(i) for i in (258, 259, 267)] == ["<|unk|>", "<|pad|>", "<|reserved_0|>"]
    assert loaded.get_vocab_size() == 300 and loaded.token_to_id(f"<|reserved_{299 - 267}|>") == 299
    facts = json.loads((out / "metrics.json").read_text())
    assert facts == {"algorithm": "bpe", "vocabulary": 300, "learned": 257, "named": 10, "reserved": 33}


def test_a_tokenizer_json_keeps_its_ids_its_own_specials_and_its_unknown_token(tmp_path):
    words = {name: i for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "weir", "##s", "the"])}
    theirs = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.add_special_tokens([AddedToken(name, special=True) for name in ("[PAD]", "[UNK]", "[CLS]")])
    theirs.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    theirs.enable_truncation(2)
    code, out = adopt(tmp_path, "tokenizer.json", theirs.to_str().encode(), "--set", "pad_to=1", "--set", "reserved=0")
    assert code == 0
    encoder = Encoder(out)
    assert encoder.encode(["the weirs, the weir"])[0].tolist() == [5, 3, 4, 1, 5, 3]
    assert (encoder.unknown, encoder.vocab_size) == (1, len(words) + len(NAMED))
    loaded = AutoTokenizer.from_pretrained(out)
    assert loaded("the weirs")["input_ids"] == [5, 3, 4]
    assert (loaded.unk_token, loaded.eos_token_id) == ("[UNK]", 6)
    assert json.loads((out / "metrics.json").read_text())["learned"] == 3
    assert json.loads((out / "tokenizer.json").read_text())["truncation"] is None


@cache
def spm(kind: str, plain: bool = False, fallback: bool = False) -> bytes:
    """A small sentencepiece model, by its default normalisation or by none."""
    options = PLAIN if plain else {"byte_fallback": fallback}
    lines = [line for _, text, _ in real_documents() for line in text.splitlines()]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *TEXTS[3:6] * 9]), model_writer=written, model_type=kind, vocab_size=900,
        num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return written.getvalue()


PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True,
         "allow_whitespace_only_pieces": True, "add_dummy_prefix": False}  # fmt: skip


@pytest.mark.parametrize("plain", [False, True])
@given(st.text(st.sampled_from("ab  \t\n<s>/\u2581(x0A①ﬁ日かÅ😀ж"), max_size=40))
def test_sentencepiece_bpe_gives_the_ids_and_the_text_of_sentencepiece(plain, text):
    model = spm("bpe", plain)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = from_sentencepiece(model)
    ours.encode_special_tokens = True
    for each in (text, *TEXTS, real_documents()[3][1]):
        ids = ours.encode(each, add_special_tokens=False).ids
        assert ids == theirs.encode(each)
        if theirs.unk_id() not in ids:
            assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids)


def test_sentencepiece_unigram_gives_the_ids_of_sentencepiece_or_others_of_the_same_likelihood():
    model = spm("unigram", fallback=True)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = from_sentencepiece(model)
    ours.encode_special_tokens = True
    texts = TEXTS + [line for _, text, _ in real_documents()[:150] for line in text.splitlines()]
    same = 0
    for text in texts:
        ids, expected = ours.encode(text, add_special_tokens=False).ids, theirs.encode(text)
        same += ids == expected
        assert sum(map(theirs.get_score, ids)) == pytest.approx(sum(map(theirs.get_score, expected)), abs=1e-3)
    assert same > 0.99 * len(texts)  # sentencepiece adds in 32 bits


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("x.tiktoken", b"YQ== 0\n!!! 1\n", "x.tiktoken line 2: not base64"),
        ("x.tiktoken", b"YQ== 0\nYg== 0\n", "line 2: rank 0 twice"),
        ("x.tiktoken", rank_file(BYTES) + b"YWI= 300\n", "257 ranks up to 300, but none is 256"),
        ("x.tiktoken", rank_file([*BYTES, b"a"]), "257 ranks, but only 256 byte strings"),
        ("x.tiktoken", rank_file(BYTES[:-2]), "2 bytes have no rank, byte 254 first"),
        ("x.tiktoken", rank_file([*BYTES, b"<|pad|>"]), "special token <|pad|> is its ordinary entry 256"),
        ("tokenizer.json", b"{}", "not readable as a tokenizer.json"),
        ("x.model", b"\x0a\xff\xff", "not readable as a sentencepiece model"),
        ("x.txt", b"", "name a .tiktoken, .json"),
    ],
)
def test_a_file_that_cannot_be_adopted_is_named_with_the_fault(tmp_path, capsys, name, content, fault):
    code, out = adopt(tmp_path, name, content)
    said = capsys.readouterr().err
    assert code == 1 and fault in said and f"foreign/{name}" in said and len(said.splitlines()) == 1
    assert not out.exists()


def test_a_link_in_an_archive_is_no_file_of_the_source(tmp_path):
    sources = publish(tmp_path / "sources", {"a.tiktoken": b"YQ== 0"}, packed=True)
    with tarfile.open(sources / "foreign" / "files.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("b.tiktoken")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../../etc/hostname"
        archive.addfile(link)
    with pytest.raises(UserError, match="no file b.tiktoken among its 0"):
        read_file(sources, "foreign", "b.tiktoken")


def test_a_missing_source_or_file_names_what_there_is(tmp_path, capsys):
    assert adopt(tmp_path / "a", "gpt2.tiktoken", b"", source="foriegn")[0] == 1
    assert "no source foriegn; it has foreign" in capsys.readouterr().err
    for packed in (False, True):
        assert adopt(tmp_path / str(packed), "gpt2.tiktoken", b"", file="../gpt.tiktoken", packed=packed)[0] == 1
        assert "no file ../gpt.tiktoken among its 1; it has gpt2.tiktoken" in capsys.readouterr().err
