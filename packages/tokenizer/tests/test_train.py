"""What a trained tokenizer folder promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

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
from headwater_tokenizer.cli import main
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.counting import count_characters, count_matches, count_pieces, read_parts, write_parts
from headwater_tokenizer.encoder import Encoder, buffers
from headwater_tokenizer.learn_bpe import learn_merges
from headwater_tokenizer.pieces import PATTERNS
from headwater_tokenizer.sampling import Drawing, draw
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
    draws = [[id_ for batch in draw(corpus, cap, Drawing(seed)) for id_ in batch.ids] for seed in (0, 0, 1)]
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
    count = count_pieces((pa.array([text], pa.large_string()) for text in texts), PATTERNS["gpt4"], 2)
    byte_of = bytes_of_characters()
    tokens = sorted(byte_of)
    byte_ids = np.zeros(256, np.int32)
    byte_ids[[byte_of[c] for c in tokens]] = np.arange(256)
    data, starts = buffers(count["piece"].to_arrow().cast("large_string"))
    pairs = learn_merges(byte_ids[data[: starts[-1]]], starts, count["count"].to_numpy(), 256, 400 - 256, least, None)
    ours = []
    for left, right in pairs.tolist():
        ours.append([tokens[left], tokens[right]])
        tokens.append(tokens[left] + tokens[right])
    assert ours == [list(merge) for merge in merges]


@given(st.lists(st.text(alphabet="ab \n中😀", max_size=20), max_size=6), st.integers(1, 3), st.integers(1, 30))
def test_counts_of_shards_add_up_to_the_count_of_the_whole(tmp_path_factory, texts, parts, most):
    folder = tmp_path_factory.mktemp("counts")
    columns = [pa.array([text], pa.large_string()) for text in texts]
    for count in (count_characters, lambda batches: count_matches(batches, r"\S+"),
                  lambda batches: count_pieces(batches, PATTERNS["gpt4"], 2)):  # fmt: skip
        whole = count(columns).sort("piece")
        for number, column in enumerate(columns):
            write_parts(count([column]), folder / str(number), parts)
        if not columns:
            continue
        paths = [folder / str(number) for number in range(len(columns))]
        assert read_parts(paths, parts, 1000)[0].equals(whole)
        kept, covered = read_parts(paths, parts, most)
        common = whole.sort("count", "piece", descending=[True, False]).head(most)
        assert kept.equals(common.sort("piece"))
        assert covered["distinct"] == len(whole) and covered["kept"] == len(kept)
        assert covered["kept_share"] == (kept["count"].sum() / whole["count"].sum() if len(whole) else 1.0)


@pytest.mark.parametrize("most", [2, 3, 7, 16, 24])
def test_every_run_of_blanks_is_one_token_whatever_the_sample_holds(tmp_path, most):
    first = TrainConfig(blank_runs=most)
    config = TrainConfig(vocab_size=first.vocab_size - first.learned + 256 + most - 1 + 4, blank_runs=most)
    texts = pa.array(["a b and ab and bab"] * 3, pa.large_string())
    learn([texts], config).save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(tmp_path)
    assert encoder.engine == "compiled"
    for run in range(1, most + 1):
        (ids,) = encoder.encode([" " * run + "\n"])
        assert len(ids) == 2 and encoder.decode(ids[:1]) == " " * run, run
    (ids,) = encoder.encode([" " * most + "x"])  # the last blank goes with the word
    assert encoder.decode(ids[:1]) == " " * (most - 1 or 1)


def test_runs_of_blanks_longer_than_a_token_may_be_are_refused():
    with pytest.raises(UsageError, match="blank_runs 32: max_token_bytes 32 allows runs of at most 31"):
        parse(TrainConfig, {"blank_runs": 32}, "tokenizer")


def test_pieces_left_out_for_want_of_memory_are_the_rare_ones_and_are_told(corpus, tmp_path):
    arguments = ["train", "--in", str(corpus), "--out", str(tmp_path / "t"), "--work", str(tmp_path / "w"), *SMALL]
    assert main([*arguments, "--set", "max_pieces=2000"]) == 0
    counted = json.loads((tmp_path / "t" / "metrics.json").read_text())["counted"]
    assert counted["kept"] == 2000 < counted["distinct"] and 0.8 < counted["kept_share"] < 1


def test_a_killed_training_goes_on_with_what_was_counted(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", real_documents() * 3, rows=16)
    command = [sys.executable, "-m", "headwater_tokenizer.cli", "train", "--in", corpus, *SMALL]
    places = ["--out", tmp_path / "killed", "--work", tmp_path / "work"]
    first = subprocess.Popen([*command, *places], stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("work/train/*/count.tasks/completions/*"))) < 3:
        assert first.poll() is None, "it ended before the kill"
        time.sleep(0.001)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = subprocess.run([*command, *places], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "count: " in second.stdout and "were done before: going on with the others" in second.stdout
    fresh = ["--out", tmp_path / "fresh", "--work", tmp_path / "other", "--set", "workers=2"]
    assert subprocess.run([*command, *fresh], capture_output=True).returncode == 0
    for name in ("tokenizer.json", "metrics.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


@pytest.mark.parametrize("fault", ["no document", "special token", "unknown source", "not a corpus"])
def test_unusable_input_is_one_line_and_publishes_nothing(fault, tmp_path, capsys):
    rows, settings, expected = real_documents()[:40], [], ""
    if fault == "no document":
        rows, expected = [("lost", None, "source")], f"{tmp_path / 'corpus' / 'train'}: no usable document"
    elif fault == "special token":
        rows = [(f"{i}", "<|endoftext|> and <|endoftext|> again", "source") for i in range(40)]
        settings, expected = (
            ["algorithm=words", "vocab_size=29"],
            "special token <|endoftext|> is entry 0 that words learned",
        )
    elif fault == "unknown source":
        settings, expected = ["source_weights.poems=2"], "no document of source poems, which source_weights names"
    corpus = write_corpus(tmp_path / "corpus", rows, real_documents()[:5])
    if fault == "not a corpus":
        (corpus / "manifest.json").unlink()
        expected = str(corpus)
    arguments = ["train", "--in", str(corpus), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main([*arguments, *(item for setting in settings for item in ("--set", setting))]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and expected in error
    assert not (tmp_path / "out").exists()


def test_records_that_are_no_text_are_left_out_of_the_sample_and_counted(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", [*real_documents()[:60], ("lost", None, "source")])
    arguments = ["train", "--in", str(corpus), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *SMALL]
    assert main(arguments) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["rejected"], metrics["sample"]["documents"]) == (1, 60)
