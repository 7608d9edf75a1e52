import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align._contracts.config import parse
from headwater_align._contracts.errors import UsageError
from headwater_align.conversation import BadRow
from headwater_align.mixtures import arithmetic, dictionary
from headwater_align.mixtures.catalogue import builtin, forms
from headwater_align.mixtures.config import Task, TasksConfig
from headwater_align.mixtures.examples import Example, balanced, draw_options, examples, first_groups
from headwater_align.readers import Row, Source

CHOICES = {"cluster": "commonsense", "source": "s", "fields": {"q": "question"}, "phrasings": ["{q}"]}


def made(rows, **task):
    source = Source("s", "tasks", "PSF-2.0", None)
    found = [Row(source, n, row) for n, row in enumerate(rows)]
    return examples("t", parse(Task, {**CHOICES, **task}, "t"), found)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Q", "choices": ["cat", "dog"], "answer": 1},
        {"question": "Q", "choices": {"text": ["cat", "dog"], "label": ["A", "B"]}, "answer": "B"},
        {"question": "Q", "choices": "A. cat\nB. dog", "answer": "B. dog"},
        {"question": "Q", "choices": "(A) cat\n(B) dog", "answer": ["dog", "cat"]},
    ],
    ids=["index", "ARC's mapping and letter", "lettered lines", "words, the first of a list"],
)
def test_choices_and_answer_are_read_in_the_forms_that_data_sets_have(row):
    (example,), refused = made([row], options="choices", answer="answer")
    assert (example.options, example.answer, refused) == (("cat", "dog"), "dog", [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Q", "choices": ["cat", "dog"], "answer": 2}, "the answer is not among the options"),
        ({"question": "Q", "choices": ["cat", "dog"], "answer": -1}, "the answer is not among the options"),
        ({"question": "Q", "choices": ["cat", "cat"], "answer": 0}, "two options are equal"),
        ({"question": "Q", "choices": ["cat"], "answer": 0}, "no choices"),
        ({"question": " ", "choices": ["cat", "dog"], "answer": 0}, "no question"),
        (["a", "list"], "not a mapping of keys"),
        (BadRow("not parseable"), "not parseable"),
    ],
)
def test_a_row_that_is_no_example_is_refused_with_the_reason(row, reason):
    found, refused = made([row], options="choices", answer="answer")
    assert not found and [str(e) for _, e in refused] == [reason]


def test_a_question_with_two_answers_is_refused_twice():
    rows = [
        {"question": "Is it?", "label": True},
        {"question": "Is it?", "label": False},
        {"question": "Or?", "label": 1},
    ]
    task = {"options": ["yes", "no"], "answer": "label", "labels": {"true": "yes", "false": "no", "1": "yes"}}
    found, refused = made(rows, **task)
    assert [e.fields["q"] for e in found] == ["Or?"]
    assert [str(e) for _, e in refused] == ["the same question with another answer"] * 2


def test_a_template_that_names_no_field_is_refused_when_the_config_is_read():
    with pytest.raises(UsageError, match="{r} in a template is no field; there are q"):
        parse(Task, {**CHOICES, "answer": "a", "phrasings": ["{q} {r}"]}, "t")


def test_a_catalogue_may_be_a_file_and_its_content_is_what_the_config_holds(tmp_path):
    (tmp_path / "more.yaml").write_text(
        "mine: {cluster: misc, source: s, fields: {q: q}, answer: a, phrasings: ['{q}']}"
    )
    config = parse(TasksConfig, {"catalogue": str(tmp_path / "more.yaml"), "tasks": ["mine"]}, "instructions")
    assert config.catalogue["mine"].cluster == "misc"
    assert str(tmp_path) not in config.model_dump_json()


def test_the_built_in_tasks_have_several_phrasings_and_flan_s_clusters():
    assert all(len(set(task.phrasings)) == len(task.phrasings) >= 3 for task in builtin().values())
    assert len({task.cluster for task in builtin().values()}) >= 4
    assert [form.lines(["a", "b"]) for form in forms().options][:2] == ["OPTIONS:\n- a\n- b", "Options:\n(A) a\n(B) b"]


@given(st.integers(1, 99), st.sampled_from(sorted(arithmetic.SIGNS)), st.integers(2, 99))
def test_sums_and_every_step_of_their_working_are_right(first, operation, second):
    second = second % 8 + 2 if operation == "times" else min(first, second)
    answer, working = arithmetic.solve(first, operation, second)
    assert answer == {"plus": first + second, "minus": first - second, "times": first * second}[operation]
    steps = re.findall(r"(\d+) ([x+-]) (\d+) = (\d+)\.", working)
    assert int(steps[-1][3]) == answer
    assert len(steps) == working.count("=") and all(int(b) for _, _, b, _ in steps)
    for a, sign, b, c in steps:
        assert {"x": int(a) * int(b), "+": int(a) + int(b), "-": int(a) - int(b)}[sign] == int(c)


def test_generated_sums_are_all_different_and_the_same_each_time():
    rows = list(arithmetic.rows(1200))
    assert len({(r["first"], r["sign"], r["second"]) for r in rows}) == 1200
    assert rows == list(arithmetic.rows(1200))


GCIDE = """Affatuate \\Af*fat"u*ate\\, v. t. [L. ad + fatuus foolish.]
   To {infatuate}, or make foolish. [Obs.] --Milton.
   [1913 Webster]
"""
SENSES = """Affect \\Af*fect"\\, v. t. [imp. & p. p. {Affected}; p. pr. & vb.
   n. {Affecting}.]
   1. To act upon; to produce an effect or
      change upon.
      [1913 Webster]

   2. To influence or move.
"""
FOLDOC = """abstract data type
ADT

   <programming> (ADT) A kind of {data abstraction} where a type's
   internal form is hidden. Values are made by functions.
"""


@pytest.mark.parametrize(
    ("entry", "definition"),
    [
        (GCIDE, "To infatuate, or make foolish."),
        (SENSES, "To act upon; to produce an effect or change upon."),
        (FOLDOC, "A kind of data abstraction where a type's internal form is hidden."),
        (GCIDE.replace("To {infatuate}, or make foolish.", "See {Infatuate}, the verb."), ""),
        ("00-database-info\n\n   x = y\n", ""),
    ],
)
def test_a_dictionary_entry_gives_its_first_sense_in_plain_words(entry, definition):
    assert dictionary.short_definition(entry) == definition


def test_a_dictionary_is_found_by_its_index(tmp_path):
    import gzip

    text = "00-info\n   who made it\n" + GCIDE
    (tmp_path / "d.dict.dz").write_bytes(gzip.compress(text.encode()))
    start, length = text.index("Aff"), len(GCIDE)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    coded = [letters[n // 64] + letters[n % 64] for n in (start, length)]
    (tmp_path / "d.index").write_text(f"00-info\tA\tX\naffatuate\t{coded[0]}\t{coded[1]}\n")
    assert list(dictionary.senses(tmp_path)) == [{"word": "affatuate", "definition": "To infatuate, or make foolish."}]


def example(number, group, answer):
    return Example(f"{number:02}", "t", "s", "l", {"q": str(number)}, answer, None, None, group)


def test_balancing_and_cutting_leave_groups_whole_and_answers_even():
    of = [("a", "yes"), ("a", "yes"), ("a", "no"), ("b", "yes"), ("c", "yes"), ("c", "no"), ("d", "no"), ("d", "yes")]
    found = [example(n, group, answer) for n, (group, answer) in enumerate(of)]
    even = balanced(found)
    assert [(e.group, e.answer) for e in even] == [(g, a) for g in "acd" for a in ("no", "yes")]
    assert [e.group for e in first_groups(even, lambda e: e.group, 3)] == ["a", "a", "c", "c"]


def test_drawn_options_hold_the_answer_once_among_other_rows_answers():
    found = [example(n, str(n), f"answer {n % 7}") for n in range(20)]
    drawn = draw_options(found, found, 4, seed=1)
    for one in drawn:
        assert len(set(one.options)) == 4 and one.answer in one.options
        assert set(one.options) <= {e.answer for e in found}
    assert len({one.options.index(one.answer) for one in drawn}) > 1
    assert drawn == draw_options(found, list(reversed(found)), 4, seed=1)
