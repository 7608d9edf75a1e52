"""Every algorithm: one folder that tokenizers and transformers load, the same bytes each time, and what it promises."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
import sentencepiece
from corpora import real_documents, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.algorithms import learn
from headwater_tokenizer.cli import main
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.learn_sentencepiece import learn_raw_unigram
from headwater_tokenizer.special import NAMED

SIZES = {
    "bpe": 700, "wordpiece": 700, "unigram": 700, "sentencepiece-bpe": 700, "sentencepiece-unigram": 700,
    "words": 700, "moses": 700, "characters": 372, "bytes": 700,
}  # fmt: skip
LOSSLESS = ("bpe", "unigram", "sentencepiece-bpe", "sentencepiece-unigram", "characters", "bytes")
CHINESE = "水库的水位在夏季下降。春天雪融化时,水位又上升,堰控制着流量。" * 3
ODD = [
    "",
    "   ",
    "a\tb\r\n\r\n  c\u2581d ▁▅\0e",
    "<|endoftext|> <0x0A> <|unk|>",
    "naïve café ſ",
    CHINESE,
    "🏞️👩‍👩‍👧",
    "\U0010fffd\uf5d0",
]


def sample() -> list[pa.LargeStringArray]:
    texts = [text for _, text, _ in real_documents()]
    return [pa.array(texts[:100], pa.large_string()), pa.array([*texts[100:], CHINESE], pa.large_string())]


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    return {name: learn(sample(), TrainConfig(algorithm=name, vocab_size=size)) for name, size in SIZES.items()}


@pytest.mark.parametrize("algorithm", SIZES)
def test_the_same_sample_gives_the_same_file(trained, algorithm):
    again = learn(sample(), TrainConfig(algorithm=algorithm, vocab_size=SIZES[algorithm]))
    assert again.to_str() == trained[algorithm].to_str()


@pytest.mark.parametrize("algorithm", SIZES)
def test_special_tokens_follow_the_learned_ones_and_the_vocabulary_is_padded(trained, algorithm):
    config = TrainConfig(algorithm=algorithm, vocab_size=SIZES[algorithm])
    ids = [trained[algorithm].token_to_id(name) for name in NAMED]
    assert ids == list(range(config.learned, config.learned + len(NAMED)))
    assert trained[algorithm].get_vocab_size() % config.pad_to == 0


@pytest.mark.parametrize("algorithm", LOSSLESS)
def test_decoding_gives_back_every_text(trained, algorithm):
    tokenizer = Tokenizer.from_str(trained[algorithm].to_str())
    tokenizer.encode_special_tokens = True
    for text in [*ODD, *(text for _, text, _ in real_documents()[:50])]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert not set(ids) & {tokenizer.token_to_id(name) for name in NAMED}
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("algorithm", ["wordpiece", "words", "moses"])
def test_words_decode_to_words_with_one_blank_between(trained, algorithm):
    ids = trained[algorithm].encode("the  value of the\nname").ids
    assert trained[algorithm].decode(ids) == "the value of the name"
    assert trained[algorithm].encode("zzyzx\U00012345").ids == [trained[algorithm].token_to_id("<|unk|>")]


@pytest.mark.parametrize("algorithm", SIZES)
def test_transformers_loads_the_folder_with_its_chat_template(algorithm, corpus, tmp_path):
    from transformers import AutoTokenizer

    out = tmp_path / "tokenizer"
    settings = [
        "--set",
        "min_frequency=1",
        "--set",
        f"algorithm={algorithm}",
        "--set",
        f"vocab_size={SIZES[algorithm]}",
    ]
    assert main(["train", "--in", str(corpus), "--out", str(out), "--work", str(tmp_path / "work"), *settings]) == 0
    loaded = AutoTokenizer.from_pretrained(out)
    ours = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded("the name of the value")["input_ids"] == ours.encode("the name of the value").ids
    chat = loaded.apply_chat_template([{"role": "user", "content": "the value"}], tokenize=False)
    assert chat == "<|user|>the value<|end|>"
    assert loaded.eos_token_id == ours.token_to_id("<|endoftext|>") and loaded.pad_token == "<|pad|>"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["algorithm"] == algorithm and metrics["heldout"]["tokens"] > 0


def test_ids_of_the_raw_unigram_are_those_of_sentencepiece(monkeypatch):
    models = []
    load = sentencepiece.SentencePieceProcessor
    monkeypatch.setattr(
        "sentencepiece.SentencePieceProcessor",
        lambda model_proto: models.append(load(model_proto=model_proto)) or models[0],
    )
    config = TrainConfig(algorithm="sentencepiece-unigram", vocab_size=700, coverage=1.0)
    tokenizer = learn_raw_unigram(sample(), config)
    for text in ("the value of the first argument", "水库的水位", "positional arguments"):
        expected = [i - 1 + 256 for i in models[0].encode(text.replace("\n", "\uf5d1"))]
        whole = Tokenizer.from_str(tokenizer.to_str())
        assert whole.encode(text).ids == expected


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram", "sentencepiece-bpe", "words", "characters"])
def test_a_vocabulary_that_the_sample_cannot_fill_names_the_largest_that_fits(algorithm):
    small = [pa.array(["the weir of the river, and the reservoir behind the weir. " * 3] * 3, pa.large_string())]
    with pytest.raises(UserError, match=r"set (vocab_size to|it to) at most (\d+)") as error:
        learn(small, TrainConfig(algorithm=algorithm, vocab_size=5000))
    largest = int(str(error.value).split("at most ")[1].split(",")[0])
    learn(small, TrainConfig(algorithm=algorithm, vocab_size=largest))


@pytest.mark.parametrize("algorithm", ["unigram", "characters"])
def test_a_vocabulary_without_room_for_the_characters_names_the_smallest_that_has(algorithm):
    many = [pa.array(["".join(map(chr, range(0x4E00, 0x4E00 + 400))) * 3] * 3, pa.large_string())]
    with pytest.raises(UserError, match=r"set it to at least (\d+)") as error:
        learn(many, TrainConfig(algorithm=algorithm, vocab_size=500, coverage=1.0))
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    learn(many, TrainConfig(algorithm=algorithm, vocab_size=least, coverage=1.0))


def test_without_byte_fallback_a_strange_character_is_unknown():
    config = TrainConfig(algorithm="unigram", vocab_size=400, byte_fallback=False)
    tokenizer = learn(sample(), config)
    assert tokenizer.token_to_id("<|unk|>") in tokenizer.encode("a \U00012345").ids


@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "words"])
def test_text_is_normalised_before_it_is_learned_and_encoded(algorithm):
    config = TrainConfig(
        algorithm=algorithm, vocab_size=400 if algorithm != "words" else 200, normalization="nfkc", lowercase=True
    )
    tokenizer = learn(sample(), config)
    assert tokenizer.encode("THE ﬁrst").ids == tokenizer.encode("the first").ids
    assert not any(
        "T" in token for token in tokenizer.get_vocab() if token not in NAMED and len(token) > 1 and token[0] != "<"
    )


@settings(max_examples=30)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_any_text_can_be_learned_from_or_is_refused_in_one_line(texts):
    for algorithm in ("unigram", "sentencepiece-bpe", "sentencepiece-unigram", "characters"):
        try:
            tokenizer = learn([pa.array(texts, pa.large_string())], TrainConfig(algorithm=algorithm, vocab_size=300))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            tokenizer.encode_special_tokens = True
            assert tokenizer.decode(tokenizer.encode(texts[0]).ids, skip_special_tokens=False) == texts[0]


def test_weights_decide_what_is_drawn(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus", real_documents())

    def documents(*settings: str) -> dict:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        values = ["vocab_size=400", "sample_bytes=60000", *settings]
        sets = [item for value in values for item in ("--set", value)]
        assert main(["train", "--in", str(corpus), "--out", str(out), "--work", str(tmp_path / "work"), *sets]) == 0
        figures = json.loads((out / "metrics.json").read_text())["sample"]["by_source"]
        return {name: part["documents"] for name, part in figures.items()}

    plain, weighted = documents(), documents("source_weights={docstring: 0.1}")
    assert weighted["docstring"] < plain["docstring"]
    assert set(documents("source_weights={source: 0}")) == {"docstring"}
    refused = [
        "--set",
        "source_weights={docstrings: 0.1}",
        "--out",
        str(tmp_path / "no"),
        "--work",
        str(tmp_path / "w"),
    ]
    assert main(["train", "--in", str(corpus), *refused]) == 1
    assert "no document of source docstrings" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_encoding_says_which_engine_it_uses(trained, tmp_path):
    for name in ("bpe", "wordpiece"):
        (tmp_path / name).mkdir()
        trained[name].save(str(tmp_path / name / "tokenizer.json"))
    assert Encoder(tmp_path / "bpe").engine == "compiled"
    assert Encoder(tmp_path / "wordpiece").engine == "tokenizers"
