import io
import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_align.chat import fit
from headwater_align.chat_format import ChatFormat
from headwater_align.cli import main
from headwater_align.engine import generation


def say(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_each_line_gets_an_answer_until_quit(sft_model, monkeypatch, capsys):
    say(monkeypatch, "Number 3?\n\nNumber 4?\n/quit\nNumber 5?\n")
    assert main(["chat", "--model", str(sft_model), "--max-tokens", "20", "--temperature", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_blocked_word_is_never_said_and_an_expert_changes_what_is(
    sft_model, base_model, tmp_path, monkeypatch, capsys
):
    heard = []
    (tmp_path / "words").write_text("placeholder of the first turn\n")
    for options in ([], ["--block", str(tmp_path / "words")], ["--expert", str(base_model)]):
        say(monkeypatch, "Number 3?\nNumber 4?\n")
        command = ["chat", "--model", str(sft_model), "--max-tokens", "20", "--seed", "5", *options]
        assert main(command) == 0
        heard.append(capsys.readouterr().out)
        (tmp_path / "words").write_text("\n".join(re.findall(r"\w+", heard[0])))
    words = {word.lower() for word in re.findall(r"\w+", heard[0])}
    assert words and not words & {word.lower() for word in re.findall(r"\w+", heard[1])}
    assert heard[2] != heard[0]


def test_of_several_answers_the_one_that_a_judge_prefers_is_said(base_model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "own_judges", SimpleNamespace(short=lambda texts: [len(t) for t in texts]))
    lengths = []
    for options in ([], ["--rerank", "6", "--judge", "own_judges:short"]):
        say(monkeypatch, "Number 3?\nNumber 4?\n")
        assert main(["chat", "--model", str(base_model), "--max-tokens", "30", "--temperature", "1", *options]) == 0
        lengths.append(len(capsys.readouterr().out))
    assert lengths[1] < lengths[0]
    assert main(["chat", "--model", str(base_model), "--rerank", "6"]) == 2
    assert "give both" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_conversation(sft_model, monkeypatch, capsys):
    heard = []
    for _ in range(2):
        say(monkeypatch, "Number 3?\nNumber 4?\n")
        main(["chat", "--model", str(sft_model), "--max-tokens", "20", "--seed", "5"])
        heard.append(capsys.readouterr().out)
    assert heard[0] == heard[1] != ""


def test_a_question_longer_than_the_context_is_said_to_be_and_the_talk_goes_on(sft_model, monkeypatch, capsys):
    say(monkeypatch, "long " * 100 + "\nNumber 3?\n")
    assert main(["chat", "--model", str(sft_model)]) == 0
    heard = capsys.readouterr()
    assert "too long" in heard.err
    assert len(heard.out.splitlines()) == 1


def test_old_turns_are_forgotten_before_the_system_message(byte_tokenizer):
    chat = ChatFormat(byte_tokenizer)
    talk = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(9)]
    ids = fit(chat, "Be kind.", talk, 60)
    text = byte_tokenizer.decode(ids, skip_special_tokens=False)
    assert text.startswith("<|system|>Be kind.<|end|><|user|>turn ")
    assert text.endswith("<|user|>turn 8<|end|><|assistant|>")
    assert "turn 0" not in text and len(ids) <= 60


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_streamed_pieces_are_whole_characters_and_add_up_to_the_text(byte_tokenizer, text):
    pieces = list(generation.decode(byte_tokenizer, byte_tokenizer.encode(text).ids))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_lose_nothing(byte_tokenizer, ids):
    assert "".join(generation.decode(byte_tokenizer, ids)) == byte_tokenizer.decode(ids)


def test_a_system_prompt_is_taken_by_name_from_a_file(base_model, tmp_path, monkeypatch, capsys):
    (tmp_path / "prompts.yaml").write_text("kind: Be kind.\nodd: 3\n")
    heard = []
    for options in (["--system", "kind", "--prompts", f"{tmp_path}/prompts.yaml"], ["--system", "Be kind."], []):
        say(monkeypatch, "Number 3?\n")
        assert main(["chat", "--model", str(base_model), "--max-tokens", "20", "--temperature", "1", *options]) == 0
        heard.append(capsys.readouterr().out)
    assert heard[0] == heard[1] != heard[2]
    for name in ("none", "odd"):
        assert main(["chat", "--model", "x", "--system", name, "--prompts", f"{tmp_path}/prompts.yaml"]) == 2
        assert "there are kind, odd" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--max-tokens", "0"), ("--top-p", "0"), ("--temperature", "-1")])
def test_an_impossible_option_is_refused_before_the_model_loads(tmp_path, capsys, option):
    assert main(["chat", "--model", str(tmp_path / "none"), *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path, capsys, sft_model):
    (tmp_path / "config.json").write_bytes((sft_model / "config.json").read_bytes())
    assert main(["chat", "--model", str(tmp_path)]) == 1
    assert "without a tokenizer" in capsys.readouterr().err
