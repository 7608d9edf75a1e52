"""Samples for people: the same prompts for every model, with the true continuation beside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater_eval.config import SamplesConfig
from headwater_eval.documents import Document
from headwater_eval.generations import cut_prompt, generate, prompt_documents

CONFIG = SamplesConfig(prompts=4, prompt_characters=16, questions=["who sat?"], max_new_tokens=6)


@given(st.text(), st.integers(16, 40))
def test_a_prompt_and_its_reference_are_the_beginning_of_the_text(text: str, characters: int) -> None:
    cut = cut_prompt(text, characters)
    if cut is not None:
        prompt, reference = cut
        assert text.startswith(prompt + reference) and prompt.strip() and len(prompt) <= characters < len(text)
        assert reference[0].isspace()


def test_prompts_go_round_the_sources_and_keep_to_the_language() -> None:
    text = "the cat sat on the mat. " * 4
    documents = [Document(f"{source}{i}", source, "en", text) for source in "aab" for i in range(5)]
    documents += [Document("fr", "c", "fr", text), Document("short", "d", "en", "too short")]
    chosen = prompt_documents(documents, CONFIG, seed=7)
    assert sorted(d.source for d in chosen) == ["a", "a", "b", "b"]
    assert prompt_documents(documents[::-1], CONFIG, seed=7) == chosen


def test_each_completion_is_what_the_model_writes_next(bigram) -> None:
    document = Document("d", "s", "en", "the cat sat on the mat. the dog sat")
    plain, chat = generate(bigram, [document], CONFIG)
    assert plain["prompt"] == "the cat sat on" and plain["reference"].startswith(" the mat")
    assert plain["completion"] == bigram.decode(bigram._continue(ord("n"), 6, [256, 257])) and plain["tokens"] <= 6
    assert chat["format"] == "chat" and chat["prompt"] == "who sat?" and chat["reference"] is None
