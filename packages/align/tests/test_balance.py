"""Counterfactual and templated demonstrations: what is swapped, how it reads, and that groups come out level."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headwater_align._contracts import manifest
from headwater_align._contracts.config import parse
from headwater_align._contracts.counterfactual import Swapper, TermSet, gender
from headwater_align.balance.config import BalanceConfig, TemplatesConfig
from headwater_align.balance.counterfactuals import names_somebody
from headwater_align.balance.templates import sets
from headwater_align.cli import main
from headwater_align.instructions import read_split

GENDER = Swapper({"gender": gender()}, names=True)
FAITHS = TermSet(
    groups=("christian", "muslim", "atheist"),
    terms=(("Christian", "Muslim", "atheist"), ("old church", "mosque", "reading room")),
)
PAIRS = [(a, b) for a, b in gender().terms if a not in ("him", "his", "lord", "gentleman", "sir", "mr")]


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("Her mother saw his brother with him.", "His father saw her sister with her."),
        ("He gave her the keys and told her to drive.", "She gave him the keys and told him to drive."),
        ("The house is his; the garden is hers.", "The house is hers; the garden is his."),
        ("Mr. Smith thanked the landlady, sir.", "Mrs. Smith thanked the landlord, madam."),
        ("An actor, a heroine and AN UNCLE", "An actress, a hero and AN AUNT"),
        ("A boy-band; mankind; others; she'll; the king's", "A boy-band; mankind; others; he'll; the queen's"),
        ("Mark it. John asked Mary to frank the letter.", "Margaret it. Patricia asked James to frank the letter."),
    ],
)  # `Mark it` is a limit that docs/align-bias.md names: a name that opens a sentence cannot be told from a verb
def test_a_swap_reads_as_it_should(text, swapped):
    assert GENDER.swap(text)[0] == swapped


def test_groups_beyond_two_are_shifted_round_and_articles_follow():
    swapper = Swapper({"faith": FAITHS})
    text = "A Christian met an atheist in an old  church. Atheists? Muslim; MUSLIM; christian names."
    once, edits = swapper.swap(text, 1)
    assert once == "A Muslim met a Christian in a mosque. Atheists? Atheist; ATHEIST; christian names."
    assert edits == {"faith": 5}
    assert swapper.swap(text, 3) == (text, {})


def conversations(config: TemplatesConfig) -> list[dict]:
    return [row for rows in sets(config) for row in rows]


cases = st.sampled_from([str.lower, str.upper, str.capitalize])
fillers = st.sampled_from(["said", "the", ",", ".", "\n", "mankind", "x-ray", "42", "Ünder", "woman-hater"])


@given(
    st.lists(st.one_of(fillers, st.tuples(st.sampled_from([w for pair in PAIRS for w in pair]), cases)), max_size=40)
)
def test_a_swap_undone_is_the_text_where_the_terms_pair_off(parts):
    """And each word keeps its case, and what is no term stays."""
    terms = TermSet(groups=("male", "female"), terms=tuple(PAIRS))
    assert terms.reversible and not gender().reversible
    swapper, text = Swapper({"gender": terms}), " ".join(p if isinstance(p, str) else p[1](p[0]) for p in parts)
    swapped, edits = swapper.swap(text)
    assert swapper.swap(swapped)[0] == text
    asked = [p for p in parts if not isinstance(p, str)]
    assert edits.total() == len(asked)
    other = {**dict(PAIRS), **{b: a for a, b in PAIRS}}
    expected = [p if isinstance(p, str) else p[1](other[p[0]]) for p in parts]
    assert re.sub(r"\b(an?) ", "", swapped, flags=re.I) == re.sub(r"\b(an?) ", "", " ".join(expected), flags=re.I)


@given(st.text(alphabet="abn heis'-.AHES\n", max_size=60))
def test_any_text_survives_and_counts_move_to_the_other_side(text):
    before = GENDER.count(text)
    swapped, edits = GENDER.swap(text)
    after = GENDER.count(swapped)
    assert edits.total() == before.total() == after.total()
    assert before["gender", "male"] == after["gender", "female"]


def talk(asked: str, answer: str) -> dict:
    return {"instruction": asked, "output": answer}


ROWS = [
    talk("Who came?", "He did, with his mother."),
    talk("And then?", "The man left."),
    talk("Who found radium?", "Marie Curie; she was a chemist."),
    *(talk(f"Question {i}?", f"Nothing here, {i}.") for i in range(20)),
    *(talk(f"Tale {i}?", f"She told her story number {i} to him.") for i in range(20)),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_sources, jsonl):
    folder = tmp_path_factory.mktemp("balance")
    make_sources(folder / "sources", {"s": ("instructions", {"a.jsonl": jsonl(ROWS)})})
    common = ["--in", f"sources={folder}/sources", "--out", f"{folder}/out", "--work", f"{folder}/work"]
    assert main(["instructions", *common]) == 0
    return folder / "out"


@pytest.fixture
def balance(source, tmp_path):
    """A function that runs the stage and gives exit code, training rows and metrics."""

    def run(*options: str, more: tuple[str, ...] = ()):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        given_options = [part for option in options for part in ("--set", option)]
        common = ["--in", f"instructions={source}", *more, "--out", str(out), "--work", f"{out}.work"]
        code = main(["balance", *common, *given_options])
        if code:
            return code, [], {}
        assert (out / "heldout.jsonl").read_bytes() == (source / "heldout.jsonl").read_bytes()
        return code, read_split(out, "train"), json.loads((out / "metrics.json").read_text())

    return run


def test_augmented_rows_name_each_group_equally_often_and_real_people_are_left_alone(balance, source):
    before = read_split(source, "train")
    _, rows, metrics = balance("templates.rows=0")
    about = Counter(r["source"] for r in rows)
    with_terms = [r for r in before if re.search(r"\b([Hh]e|man|[Ss]he)\b", r["messages"][1]["content"])]
    people = [r for r in with_terms if "Curie" in r["messages"][1]["content"]]
    assert about == {"s": len(before), "s/counterfactual": len(with_terms) - len(people)}
    assert metrics["rejects_by_reason"] == ({"names somebody, so kept as it is": 1} if people else {})
    sides = metrics["balance"]["gender"]
    assert sides["female"]["after"] - sides["male"]["after"] == len(people)  # Curie's `she`
    texts = {r["messages"][1]["content"] for r in rows}
    assert "She told her story number 3 to him." not in texts or "He told his story number 3 to her." in texts
    _, _, all_swapped = balance("templates.rows=0", "named=swap")
    level = all_swapped["balance"]["gender"]
    assert level["male"]["after"] == level["female"]["after"] and level["male"]["share_after"] == 0.5


def test_substitution_keeps_the_number_of_rows_and_a_control_the_very_rows(balance, source):
    before = read_split(source, "train")
    _, rows, metrics = balance("method=substitute", "templates.rows=0", "named=swap")
    made = [r for r in rows if "counterfactual_of" in r]
    assert len(rows) == len(before) and 0 < len(made) < metrics["balance"]["gender"]["male"]["before"]
    assert {r["counterfactual_of"] for r in made}.isdisjoint(r["id"] for r in rows)
    _, with_made, _ = balance("templates.rows=10")
    _, control, _ = balance("templates.rows=10", "control=true")
    said = {json.dumps(r["messages"]) for r in before}
    assert len(control) == len(with_made) > len(before)
    assert {json.dumps(r["messages"]) for r in control} == said
    assert len({r["id"] for r in control}) == len(control)


def test_only_what_was_made_is_kept_on_request(balance):
    _, rows, _ = balance("keep=made", "templates.rows=6")
    assert all("counterfactual_of" in r or r["source"] == "balanced templates" for r in rows)


def test_a_users_sets_and_templates_are_read_from_files_and_no_path_is_kept(balance, tmp_path):
    sets, forms = tmp_path / "sets.yaml", tmp_path / "forms.yaml"
    sets.write_text(yaml.safe_dump({"number": {"groups": ["one", "two", "three"], "terms": [["man", "dog", "ox"]]}}))
    forms.write_text(
        yaml.safe_dump(
            {
                "groups": {"a": {"house": "church"}, "b": {"house": "mosque"}, "c": {"house": "temple"}},
                "slot": "town",
                "values": {"Ulm": None, "Exeter": "a"},
                "templates": [{"prompt": "What is in {town}?", "answer": "{House} and {house} of {a_town}."}],
            }
        )
    )
    _, rows, metrics = balance("keep=made", f"term_sets={sets}", f"templates.file={forms}")
    assert metrics["made"]["templates"] == 6 and metrics["terms_swapped"] in ({"number": 2}, {})
    assert "Mosque and mosque of an Exeter." in {r["messages"][1]["content"] for r in rows}
    assert not any(str(tmp_path) in p.read_text() for p in tmp_path.rglob("manifest.json"))


def test_templates_come_in_whole_sets_and_counter_leaves_the_usual_group_out():
    rows = conversations(TemplatesConfig(rows=41))
    assert len(rows) == 40
    assert Counter(r["group"] for r in rows) == {"female": 20, "male": 20}
    assert all(not re.search(r"\ba [aeiou]|[{}]", m["content"]) for r in rows for m in r["messages"])
    counter = conversations(TemplatesConfig(direction="counter"))
    usual = TemplatesConfig().content.values
    assert counter and all(usual[r["value"]] not in (None, r["group"]) for r in counter)
    swapper = Swapper({"gender": gender()})
    by_group = Counter()
    for row in conversations(TemplatesConfig()):
        for message in row["messages"]:
            by_group += swapper.count(message["content"])
    assert by_group["gender", "male"] == by_group["gender", "female"] > 0


def test_benchmark_items_and_held_out_questions_are_refused(balance, source, tmp_path):
    items = tmp_path / "items"
    items.mkdir()
    text = "The plumber said that she was tired but glad, and that she would show us her notes tomorrow."
    (items / "winobias.jsonl").write_text(json.dumps({"id": "1", "text": text}) + "\n")
    manifest.write(items, manifest.Manifest("items", 2, "test", "0", "items", {}))
    _, rows, metrics = balance("method=none", more=("--in", f"items={items}"))
    assert metrics["rejects_by_reason"] == {"holds a benchmark item": 51, "another of its set is refused": 51}
    assert Counter(r.get("group") for r in rows)["female"] == Counter(r.get("group") for r in rows)["male"] > 0
    assert not any(text in m["content"] for r in rows for m in r["messages"])
    asked = read_split(source, "heldout")[0]["messages"][0]["content"]
    forms = {
        "groups": {"a": {"they": "she"}, "b": {"they": "he"}},
        "values": {"baker": None},
        "templates": [{"prompt": asked, "answer": "{They} did."}],
    }
    (tmp_path / "forms.yaml").write_text(yaml.safe_dump(forms))
    code, _, _ = balance("method=none", f"templates.file={tmp_path}/forms.yaml")
    assert code == 1  # nothing is left


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Ada Lovelace wrote it.", True),
        ("the reign of Queen Victoria", True),
        ("The Nile is long. She knew. I am here.", False),
        ("Mr Smith and his wife", False),
        ("Who is he?", False),
    ],
)
def test_a_name_is_two_capitalised_words(text, named):
    assert names_somebody(text) == named


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"term_sets": {"x": {"groups": ["a", "b"], "terms": [["he"]]}}}, "a row needs one word for each of a, b"),
        ({"term_sets": {"x": {"groups": ["a", "b"]}}}, "no terms"),
        ({"term_sets": {}}, "no term set"),
        ({"term_sets": "no/such.yaml"}, "no/such.yaml"),
        ({"templates": {"file": "no/such.yaml"}}, "no/such.yaml"),
        ({"metod": "none"}, "did you mean method?"),
    ],
)
def test_a_wrong_set_is_one_line(values, said):
    with pytest.raises(Exception, match=re.escape(said)) as error:
        parse(BalanceConfig, values, "balance")
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_a_template_with_a_strange_gap_is_refused(tmp_path):
    forms = {"groups": {"a": {"they": "she"}, "b": {"they": "he"}}, "values": {"baker": None}}
    for answer, said in (
        ("{she} is.", "unknown gap she"),
        ("The {occupation}.", "no word of a group"),
        ("{they", "'}'"),
    ):
        (tmp_path / "f.yaml").write_text(yaml.safe_dump({**forms, "templates": [{"prompt": "?", "answer": answer}]}))
        with pytest.raises(Exception, match=said):
            parse(BalanceConfig, {"templates": {"file": str(tmp_path / "f.yaml")}}, "balance")
