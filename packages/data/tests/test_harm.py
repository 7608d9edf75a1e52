"""Word lists, classifiers, the analysis of identity terms, and the two mitigations."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts.errors import UsageError
from headwater_data.harm.identity import analyse, gap, log_odds
from headwater_data.harm.modification import counterfactual, neutral_terms
from headwater_data.harm.wordlists import WordLists, find_wordlists

SENTENCES = [
    ("He gave her the book and told her to read it.", "She gave him the book and told him to read it."),
    ("Her mother saw his brother with him.", "His father saw her sister with her."),
    ("The house is his; the garden is hers.", "The house is hers; the garden is his."),
    ("SHE SAID IT HERSELF", "HE SAID IT HIMSELF"),
    ("Mr. Smith loves his wife.", "Mrs. Smith loves her husband."),
    ("I saw her yesterday, and her old friend too.", "I saw him yesterday, and his old friend too."),
    ("The king's sons met a woman-hater.", "The queen's daughters met a woman-hater."),
    ("Ask her if her son is in.", "Ask him if his daughter is in."),
]


@pytest.mark.parametrize(("text", "swapped"), SENTENCES)
def test_a_swap_is_grammatical(text, swapped):
    assert counterfactual(text)[0] == swapped


def test_names_are_swapped_on_request_and_stay_one_person():
    text = "John met Mary. John mark the day; may John be well."
    assert counterfactual(text)[0] == text
    swapped, edits = counterfactual(text, names=True)
    assert swapped == "Patricia met James. Patricia mark the day; may Patricia be well." and edits == 4


def test_neutral_forms_keep_their_case():
    text, edits = neutral_terms("The POLICEMAN and the Chairman thank Firemen, not firemen's chairs.")
    assert text == "The POLICE OFFICER and the Chair thank Firefighters, not firefighters's chairs." and edits == 4


@given(
    st.lists(
        st.sampled_from(["he", "she", "man", "woman", "Father", "MOTHER", "sir", "said", "the", "a", ",", ".", "\n"]),
        max_size=30,
    )
)
def test_a_swap_undone_is_the_text_where_no_pronoun_has_two_forms(words):
    text = " ".join(words)
    assert counterfactual(counterfactual(text)[0])[0] == text


def test_half_of_the_documents_are_swapped_whole_and_counted(tmp_path):
    texts = [f"He is number {i}; she is not. His father knows the policeman." for i in range(200)]
    folder = documents_folder(tmp_path / "in", documents_frame(texts))
    steps = {"counterfactual": True, "neutral_terms": True}
    out = run_stage("clean", tmp_path, {"documents": folder}, workers=1, steps=steps)
    frame = pl.read_parquet(out / "part-*.parquet")
    swapped = frame.filter(pl.col("clean_counterfactual") > 0)
    assert 70 < len(swapped) < 130 and (swapped["clean_counterfactual"] == 4).all()
    assert all(t.startswith("She") and "Her mother" in t for t in swapped["text"])
    assert (frame["clean_neutral_terms"] == 1).all() and not frame["text"].str.contains("policeman").any()


def test_the_swap_brings_the_genders_level_beside_occupations(tmp_path):
    """Measured before and after: a corpus in which only men are doctors and only women are nurses."""
    texts = [f"The doctor said he was late, case {i}." for i in range(400)]
    texts += [f"She is the nurse of ward {i}." for i in range(100)]
    folder = documents_folder(tmp_path / "in", documents_frame(texts))
    out = run_stage("clean", tmp_path, {"documents": folder}, workers=1, steps={"counterfactual": True})
    before = analyse([pl.Series(texts)])["gender"]
    after = analyse([pl.read_parquet(out / "part-*.parquet")["text"]])["gender"]
    z = before["male"]["typical"]["occupations"]["doctor"]
    assert z > 5 and "nurse" in before["female"]["typical"]["occupations"]
    assert before["male"]["mentions"] == 400 and abs(after["male"]["mentions"] - after["female"]["mentions"]) < 80
    assert all(max(after[g]["typical"]["occupations"].values(), default=0) < z / 2 for g in ("male", "female"))


def test_counts_are_those_of_a_plain_count():
    texts = ["A doctor is here. She is a doctor, he said.", "nobody", "A woman and the king of peace and love."]
    result = analyse([pl.Series(texts[:1]), pl.Series(texts[1:])])
    female, male = result["gender"]["female"], result["gender"]["male"]
    assert (female["mentions"], male["mentions"]) == (2, 2)
    words = sum(len(t.replace(".", "").replace(",", "").split()) for t in texts)
    assert female["per_million_words"] == pytest.approx(1e6 * 2 / words, rel=1e-3)
    assert female["beside"] == {"occupations": 1.0, "pleasant": 0.5, "unpleasant": 0.0}
    assert gap(result, "gender", "pleasant") == 1.0  # too few mentions to say


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=10))
def test_log_odds_change_sign_with_the_sides(counts):
    import numpy as np

    a, b = np.array([x for x, _ in counts]), np.array([y for _, y in counts])
    assert log_odds(a, b) == pytest.approx([-z for z in log_odds(b, a)])


@pytest.fixture
def lists(tmp_path):
    folder = tmp_path / "sources" / "lists"
    folder.mkdir(parents=True)
    (folder / "en.json").write_text(json.dumps(["darn", "blast it all", "x y"]))
    (folder / "zh.json").write_text(json.dumps(["坏蛋"]))
    (folder / "de.txt").write_text("verflixt\n")
    (folder / "source.json").write_text(json.dumps({"role": "wordlists"}))
    return tmp_path / "sources"


def test_words_and_phrases_are_counted_in_the_documents_language(lists):
    found = find_wordlists(lists)
    assert found is not None
    texts = pl.Series(["Darn! Blast it, all. DARN", "darned", "verflixt darn", "你这个坏蛋坏蛋", "darn", ""])
    counts = found.count(texts, pl.Series(["en", "en", "de", "zh", "fr", "en"]))
    assert counts["harm_words"].to_list() == [3, 0, 1, 2, None, 0]
    assert counts["harm_share"].to_list()[:3] == [3 / 5, 0, 1 / 2]


@given(
    st.lists(st.text(alphabet="ab ", min_size=1, max_size=5), min_size=1, max_size=6),
    st.text(alphabet="ab .", max_size=40),
)
def test_counts_equal_a_search_word_by_word(words, text):
    from headwater_data.words import WORD

    found = WordLists({"en": words}).count(pl.Series([text]), pl.Series(["en"]))["harm_words"][0]
    tokens = WORD.findall(text)
    phrases = {tuple(WORD.findall(w)) for w in words} - {()}
    expected = sum(tuple(tokens[i : i + len(p)]) == p for p in phrases for i in range(len(tokens)))
    assert found == expected


def shouting(texts: list[str]) -> list[float]:
    """A classifier: the share of capitals."""
    return [sum(map(str.isupper, t)) / max(len(t), 1) for t in texts]


def test_any_classifier_scores_documents_or_their_worst_line(tmp_path, lists):
    folder = documents_folder(tmp_path / "in", documents_frame(["all is well\nGO AWAY", "darn"]))
    scores = {}
    for level in ("document", "line"):
        (tmp_path / level).mkdir()
        out = run_stage(
            "signals", tmp_path / level, {"documents": folder, "sources": lists}, workers=1,
            harm_classifier="test_harm:shouting", harm_level=level,
        )  # fmt: skip
        frame = pl.read_parquet(out / "part-*.parquet")
        scores[level] = frame["harm_score"].to_list()
    assert scores["document"] == [pytest.approx(6 / 19), 0] and scores["line"] == [pytest.approx(6 / 7), 0]
    assert frame["harm_words"].to_list() == [0, 1]
    with pytest.raises(UsageError, match="can't be imported"):
        (tmp_path / "none").mkdir()
        run_stage("signals", tmp_path / "none", {"documents": folder}, workers=1, harm_classifier="no_module:f")
    rules = {"c4_bad_words": {"enabled": True}}
    (tmp_path / "f").mkdir()
    filtered = run_stage("filter", tmp_path / "f", {"documents": tmp_path / "line" / "out-signals"}, rules=rules)
    rejects = pl.read_parquet(filtered / "rejects/*.parquet")
    assert "web/d1" in rejects["id"].to_list()
