import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from headwater_align._contracts.errors import UserError
from headwater_align.chat_format import ChatFormat

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@pytest.fixture(scope="module")
def chat(byte_tokenizer):
    return ChatFormat(byte_tokenizer)


def talk(*contents, system=None):
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_ids_spell_the_documented_rendering(chat, byte_tokenizer):
    (made,) = chat.render([talk("Hello", "Hi", "And?", "So.", system="Be kind.")])
    expected = (
        "<|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>Hi<|end|><|user|>And?<|end|><|assistant|>So.<|end|>"
    )
    assert byte_tokenizer.decode(made.ids, skip_special_tokens=False) == expected


def test_the_mask_covers_every_answer_of_many_turns_and_its_end_and_nothing_else(chat, byte_tokenizer):
    (made,) = chat.render([talk("Hello", "Hi", "And?", "So.", system="Be kind.")])
    supervised = [i for i, m in zip(made.ids, made.supervised, strict=True) if m]
    assert byte_tokenizer.decode(supervised, skip_special_tokens=False) == "Hi<|end|>So.<|end|>"


def test_a_prompt_is_the_beginning_of_its_whole_conversation(chat):
    whole, prompt = talk("Hello", "Hi"), talk("Hello")
    (made,), (asked,) = chat.render([whole]), chat.prompts([prompt])
    assert made.ids[: len(asked)] == asked
    assert made.supervised[len(asked) :] == [True] * (len(made.ids) - len(asked))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text() | st.sampled_from(SPECIAL), min_size=2, max_size=2))
def test_typed_special_tokens_are_words_and_end_no_turn(chat, contents):
    (made,) = chat.render([talk(*contents)])
    assert made.ids.count(chat.end) == 2
    assert sum(i in (chat.roles["user"], chat.roles["assistant"], chat.roles["system"]) for i in made.ids) == 2


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5), st.text())
def test_what_a_prompt_says_can_be_read_from_its_ids(chat, contents, system):
    messages = talk(*contents[: len(contents) - 1 + len(contents) % 2], system=system)  # the last one is the user's
    (ids,) = chat.prompts([messages])
    assert chat.messages(ids) == messages


def test_rendering_leaves_the_tokenizer_as_it_was(chat, byte_tokenizer):
    before = byte_tokenizer.encode("a<|end|>").ids
    chat.render([talk("a<|end|>", "b")])
    assert byte_tokenizer.encode("a<|end|>").ids == before


def test_a_tokenizer_without_the_chat_tokens_is_refused_in_words():
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    with pytest.raises(UserError, match=r"no <\|end\|>"):
        ChatFormat(bare)
