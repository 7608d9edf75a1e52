import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align._contracts.stage import fingerprint
from headwater_align.chat_format import ChatFormat
from headwater_align.cli import STAGES, main
from headwater_align.conversation import BadRow, asked, check, is_heldout, prompt_key, prompts, transcript
from headwater_align.instructions import read_split
from headwater_align.labels import sample
from headwater_align.ppo.prompts import prompts_of
from headwater_align.readers import demonstrations, read

HELLO = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


def talk(*contents):
    """A system message, then user and assistant in turn."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return [{"role": "system", "content": "Be brief."}, *turns]


THREE = talk("Hello", "Hi.", "And?", "So.", "Why?", "Because.")
OTHER = talk("Hello", "Hi.", "And?", "So.", "How?", "Thus.")  # parts from it at the third question
AGAIN = talk("Hello", "Hi.", "And?", "So.", "Why?", "No idea.")  # asks what THREE asks, and is answered otherwise


@pytest.mark.parametrize(
    ("turns", "asked_for"),
    [
        ("first", [talk("Hello")]),
        ("last", [talk("Hello", "Hi.", "And?", "So.", "Why?")]),
        ("every", [talk("Hello"), talk("Hello", "Hi.", "And?"), talk("Hello", "Hi.", "And?", "So.", "Why?")]),
    ],
)
def test_a_prompt_is_all_that_comes_before_the_answer_that_is_asked_for(turns, asked_for):
    assert prompts(THREE, turns) == asked_for
    assert prompts(THREE[:-1], turns) == asked_for  # a comparison's prompt: its last question waits for the answer


@pytest.mark.parametrize(
    ("turns", "found"),
    [("first", ["three 2"]), ("last", ["three 6", "other 6"]), ("every", ["three 2", "three 4", "three 6", "other 6"])],
)
def test_prompts_are_distinct_by_all_their_messages(turns, found):
    records = [{"id": name, "messages": m} for name, m in (("three", THREE), ("other", OTHER), ("again", AGAIN))]
    assert [f"{record['id']} {len(messages)}" for record, messages in asked(records, turns)] == found


@pytest.mark.parametrize("turns", ["first", "last", "every"])
def test_ppo_and_labellers_ask_the_same_prompts(turns, byte_tokenizer, tmp_path, jsonl):
    records = [
        {"id": f"{i}", "source": "s", "licence": "none", "messages": m} for i, m in enumerate([THREE, OTHER, AGAIN])
    ]
    (tmp_path / "train.jsonl").write_text(jsonl(records))
    chat = ChatFormat(byte_tokenizer)
    drawn = sample.prompts_of(tmp_path, "train", turns)
    rendered = chat.prompts([prompt.messages for prompt in drawn])
    trained_on, too_long = prompts_of(tmp_path, "train", chat, 99, turns)
    assert sorted(prompt.ids for prompt in trained_on) == sorted(rendered) and too_long == 0
    assert [prompt.id for prompt in drawn] == sorted(prompt.id for prompt in drawn)
    # <|system|> Be brief. <|end|> <|user|> Hello <|end|> <|assistant|> are 19 ids of this tokenizer; the others more.
    short, too_long = prompts_of(tmp_path, "train", chat, 19, turns)
    assert len(short) == (turns != "last") and len(short) + too_long == len(drawn)


@pytest.mark.parametrize("name", ["ppo", "outcome", "sample"])
def test_a_run_that_asks_other_prompts_is_another_run(name):
    stage = next(stage for stage in STAGES if stage.name == name)
    configs = {turns: stage.config(turns=turns) for turns in ("first", "last", "every")}
    assert len({fingerprint(stage, "headwater-align", "0", config, {}) for config in configs.values()}) == 3
    assert stage.config() == configs["last"]


def test_people_read_a_conversation_of_several_turns_under_its_roles():
    assert transcript(HELLO[:1]) == "Hello"
    several = "SYSTEM: Be brief.\n\nUSER: Hello\n\nASSISTANT: Hi.\n\nUSER: And?"
    assert transcript(talk("Hello", "Hi.", "And?")) == several


@pytest.mark.parametrize(
    ("row", "user", "answer"),
    [
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, "Add.\n\n1 and 2", "3"),
        ({"instruction": "Greet.", "input": "", "output": "Hi"}, "Greet.", "Hi"),
        ({"messages": HELLO}, "Hello", "Hi"),
        ({"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}, "Hello", "Hi"),
        ({"inputs": "Hello", "targets": "Hi"}, "Hello", "Hi"),
        ({"prompt": "Hello", "completion": "Hi"}, "Hello", "Hi"),
        ({"turns": ["Hello", "Hi", "nobody answers this"]}, "Hello", "Hi"),
    ],
)
def test_each_public_format_gives_the_same_messages(row, user, answer):
    expected = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    assert [made["messages"] for made in demonstrations(row)] == [expected]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Say nothing.", "output": "  "}, "empty assistant message"),
        ({"instruction": None, "output": "x"}, "content is not text"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "unknown role"),
        ({"conversations": [{"from": "human", "value": "Hello"}]}, "does not end with the assistant"),
        ({"messages": [HELLO[0], HELLO[0], HELLO[1]]}, "turns do not alternate between user and assistant"),
        ({"messages": "Hello"}, "no messages"),
        ({"text": "Hello"}, "unknown format"),
        (["Hello"], "not a mapping of keys"),
        ({"name": "f", "doc": ""}, "no name or no docstring"),
    ],
)
def test_a_row_that_is_no_conversation_is_refused_with_the_reason(row, reason):
    with pytest.raises(BadRow, match=reason):
        demonstrations(row)


def test_a_preference_keeps_the_whole_conversation_before_the_answers():
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}, {"from": "human", "value": "And?"}]
    row = {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    (made,) = read(row, "comparisons")[1]
    assert [m["content"] for m in made["prompt"]] == ["Hello", "Hi", "And?"]
    assert (made["responses"], made["ranks"]) == (["Yes.", "No."], [1, 2])


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [("Yes", "Yes ", "equal"), ("Yes", "", "empty"), ("Yes", None, "not text"), (["a", "b"], "No", "not text")],
)
def test_a_preference_without_two_different_answers_is_refused(chosen, rejected, reason):
    with pytest.raises(BadRow, match=reason):
        read({"prompt": "Hello?", "chosen": chosen, "rejected": rejected}, "comparisons")


@given(st.text(min_size=1).filter(str.strip))
def test_case_and_spacing_do_not_make_another_prompt(text):
    asked = check([{"role": "user", "content": text}], last="user")
    spaced = check([{"role": "user", "content": f"  {text}\n\n"}], last="user")
    assert prompt_key(asked) == prompt_key(spaced)


@given(st.text(), st.floats(0.01, 0.5))
def test_what_a_small_fraction_holds_out_a_larger_one_holds_out_too(key, fraction):
    assert is_heldout(key, 2 * fraction) or not is_heldout(key, fraction)


def test_the_held_out_share_is_near_the_fraction():
    share = sum(is_heldout(str(i), 0.1) for i in range(10_000)) / 10_000
    assert abs(share - 0.1) < 0.01


def test_one_prompt_never_stands_on_both_sides(tmp_path, make_sources, jsonl):
    rows = [
        {"instruction": f"{'Question' if j else 'question'}  {i}", "output": f"{i} {j}"}
        for i in range(99)
        for j in (0, 1)
    ]
    sources = make_sources(tmp_path / "sources", {"s": ("instructions", {"a.jsonl": jsonl(rows)})})
    assert (
        main(["instructions", "--in", f"sources={sources}", "--out", f"{tmp_path}/o", "--work", f"{tmp_path}/w"]) == 0
    )
    train, heldout = (read_split(tmp_path / "o", side) for side in ("train", "heldout"))
    assert len(train) + len(heldout) == len(rows)
    assert heldout
    assert not {prompt_key(r["messages"]) for r in train} & {prompt_key(r["messages"]) for r in heldout}
