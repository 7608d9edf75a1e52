"""What a trained tokenizer folder promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from corpora import real_documents, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from headwater_tokenizer._contracts.config import parse
from headwater_tokenizer._contracts.errors import UsageError
from headwater_tokenizer.algorithms import learn
from headwater_tokenizer.byte_names import bytes_of_characters
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.cli import main
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.corpus import draw
from headwater_tokenizer.encoder import buffers
from headwater_tokenizer.learn_bpe import count_pieces, learn_merges, new_counter
from headwater_tokenizer.pieces import PATTERNS
from headwater_tokenizer.special import NAMED
from headwater_tokenizer.splits import split_pattern

SMALL = ["--set", "vocab_size=1024", "--set", "reserved=4"]


def train(corpus, out, *more, **environment):
    """The command in a process of its own, since thread counts are read once a process."""
    command = [sys.executable, "-m", "headwater_tokenizer.cli", "train", "--in", corpus, "--out", out]
    command += ["--work", out.with_name("work"), *SMALL, *more]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_same_documents_give_the_same_bytes_in_any_order_sharding_and_number_of_threads(tokenizer, tmp_path):
    shuffled = write_corpus(tmp_path / "corpus", reversed(real_documents()), real_documents()[:20], rows=17, shards=3)
    done = train(shuffled, tmp_path / "tokenizer", RAYON_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "tokenizer" / name).read_bytes() == (tokenizer / name).read_bytes()


def test_vocabulary_is_bytes_and_learned_tokens_then_named_then_reserved_up_to_the_multiple(corpus, tmp_path):
    arguments = ["train", "--in", str(corpus), "--out", str(tmp_path / "t"), "--work", str(tmp_path / "w")]
    assert main([*arguments, "--set", "vocab_size=700", "--set", "pad_to=128", "--set", "reserved=10"]) == 0
    loaded = Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json"))
    assert loaded.get_vocab_size(with_added_tokens=False) == 700 - 10 - len(NAMED)
    assert loaded.get_vocab_size() == 768
    first = 700 - 10 - len(NAMED)
    assert [loaded.id_to_token(first + i) for i in range(len(NAMED) + 1)] == [*NAMED, "<|reserved_0|>"]
    assert loaded.id_to_token(767) == f"<|reserved_{767 - first - len(NAMED)}|>"


def test_metrics_agree_with_a_count_by_hand(corpus, tokenizer):
    metrics = json.loads((tokenizer / "metrics.json").read_text())
    loaded = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    heldout = real_documents()[:20]
    tokens = sum(len(loaded.encode(text, add_special_tokens=False)) for _, text, _ in heldout)
    assert metrics["heldout"]["tokens"] == tokens
    assert metrics["heldout"]["bytes"] == sum(len(text.encode()) for _, text, _ in heldout)
    assert metrics["heldout"]["words"] == sum(len(text.split()) for _, text, _ in heldout)
    assert metrics["heldout"]["by_source"]["docstring"]["documents"] == sum(s == "docstring" for *_, s in heldout)
    assert metrics["vocabulary"] == 1024
    assert 1 < metrics["sample"]["bytes_per_token"] < 8


def test_sample_keeps_to_its_cap_and_changes_with_the_seed(corpus):
    cap = 100_000
    draws = [[id_ for batch in draw(corpus, cap, seed) for id_ in batch.ids] for seed in (0, 0, 1)]
    size = {id_: len(text.encode()) for id_, text, _ in real_documents()}
    assert draws[0] == draws[1] != draws[2]
    assert all(0 < sum(size[id_] for id_ in drawn) <= cap for drawn in draws)


@given(st.text(max_size=200))
def test_every_text_survives_encoding_and_decoding(tokenizer, text):
    loaded = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    loaded.encode_special_tokens = True
    assert loaded.decode(loaded.encode(text).ids, skip_special_tokens=False) == text


def test_no_token_holds_more_digits_than_configured_and_none_is_longer_than_allowed(tmp_path):
    numbers = [(str(i), f"{i * 7919} {i % 7}2024 {'=' * 80} spillway ", "s") for i in range(500)]
    corpus = write_corpus(tmp_path / "corpus", numbers)
    assert train(corpus, tmp_path / "t", "--set", "vocab_size=310", "--set", "max_token_bytes=9").returncode == 0
    learned = Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json")).get_vocab(with_added_tokens=False)
    assert max(sum(c in "0123456789" for c in token) for token in learned) == 2
    assert 8 <= max(len(token) for token in learned) <= 9


def test_a_vocabulary_beyond_the_text_is_refused_with_the_largest_that_fits(tmp_path):
    tiny = write_corpus(tmp_path / "corpus", [("a", "the weir and the sluice, the weir and the dam", "s")])
    done = train(tiny, tmp_path / "t")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "set vocab_size to at most" in done.stderr
    largest = done.stderr.split("at most ")[1].split(",")[0]
    assert train(tiny, tmp_path / "t", "--set", f"vocab_size={largest}").returncode == 0
    assert train(tiny, tmp_path / "t", "--set", f"vocab_size={int(largest) + 1}").returncode == 1


def test_a_vocabulary_without_room_for_learning_is_refused():
    with pytest.raises(UsageError, match="leaves nothing to learn"):
        parse(TrainConfig, {"vocab_size": 270, "reserved": 16}, "train")


@pytest.mark.parametrize(
    ("split", "digits", "pieces"),
    [
        ("gpt2", 0, ["In", " 1984", ",", " it", "'s", "\n\n", " x", "  ", " END", "'", "LL"]),
        ("gpt4", 2, ["In", " ", "19", "84", ",", " it", "'s", "\n\n", " x", "  ", " END", "'LL"]),
    ],
)
def test_splits_cut_where_the_published_patterns_do(split, digits, pieces):
    text = "In 1984, it's\n\n x   END'LL"
    cut = pre_tokenizers.Split(Regex(split_pattern(split, digits)), "isolated")
    assert [piece for piece, _ in cut.pre_tokenize_str(text)] == pieces


def test_transformers_loads_the_folder_and_renders_chats_without_added_white_space(tokenizer):
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What is a spillway?\n"},
        {"role": "assistant", "content": "A channel."},
    ]
    expected = "<|system|>Be brief.<|end|><|user|> What is a spillway?\n<|end|><|assistant|>A channel.<|end|>"
    assert loaded.apply_chat_template(messages, tokenize=False) == expected
    assert loaded.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True).endswith(
        "\n<|end|><|assistant|>"
    )
    with pytest.raises(Exception, match="unknown role judge"):
        loaded.apply_chat_template([{"role": "judge", "content": ""}], tokenize=False)
    assert (loaded.eos_token, loaded.pad_token) == ("<|endoftext|>", "<|pad|>")
    plain = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    assert loaded("def f(x):\n    return 12345")["input_ids"] == plain.encode("def f(x):\n    return 12345").ids


@pytest.mark.parametrize("longest", [None, 9])
@pytest.mark.parametrize("least", [1, 2, 5])
def test_merges_are_those_of_tokenizers_own_trainer(longest, least):
    """On real text until nothing is left to merge; tokenizers' trainer counts the pieces of the same split."""
    texts = [text for _, text, _ in real_documents()][: 60 if least == 1 else None]
    config = TrainConfig(vocab_size=6000, min_frequency=least, max_token_bytes=longest)
    theirs = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(split_pattern(config.split, config.digits)), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=config.learned, min_frequency=least, max_token_length=longest,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False,
    )  # fmt: skip
    theirs.train_from_iterator(texts, trainer)
    reached = min(theirs.get_vocab_size() + config.vocab_size - config.learned, config.vocab_size)
    ours = learn([pa.array(texts, pa.large_string())], config.model_copy(update={"vocab_size": reached}))
    assert json.loads(ours.to_str())["model"] == json.loads(theirs.to_str())["model"]


@settings(max_examples=60)
@given(st.lists(st.text(alphabet="ab c", max_size=30), min_size=1, max_size=8), st.integers(1, 3))
def test_a_few_texts_of_few_letters_give_the_merges_of_tokenizers(texts, least):
    """Ties, overlapping pairs (aaa) and pieces that become one token."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(split_pattern("gpt4", 2)), "isolated")
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    theirs.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, min_frequency=least, initial_alphabet=alphabet, show_progress=False)
    )
    merges = json.loads(theirs.to_str())["model"]["merges"]
    counter = new_counter(2, 4)
    for text in texts:
        counter = count_pieces(
            counter, *buffers(pa.array([text], pa.large_string())), class_table(), PATTERNS["gpt4"], 2
        )
    byte_of = bytes_of_characters()
    tokens = sorted(byte_of)
    byte_ids = np.zeros(256, np.int64)
    byte_ids[[byte_of[c] for c in tokens]] = np.arange(256)
    pairs = learn_merges(counter, byte_ids, 400 - 256, least, None)
    ours = []
    for left, right in pairs.tolist():
        ours.append([tokens[left], tokens[right]])
        tokens.append(tokens[left] + tokens[right])
    assert ours == [list(merge) for merge in merges]
