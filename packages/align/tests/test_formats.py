"""What is written in a public format is read back the same; what cannot be held is refused, never bent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.conversation import BadRow, identity, is_unicode
from headwater_align.formats import WRITABLE
from headwater_align.preference import CONTENT, comparison, pairs_of, record
from headwater_align.readers import read

texts = st.text(min_size=1, max_size=30).map(str.strip).filter(lambda t: t and is_unicode(t))
names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)


@st.composite
def dialogues(draw, last="assistant", most=3):
    """Messages in turn, with a system message or without."""
    system = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    count = 2 * draw(st.integers(1, most)) - (last == "user")
    return system + [{"role": ("user", "assistant")[i % 2], "content": draw(texts)} for i in range(count)]


@st.composite
def demonstrations(draw):
    messages = draw(dialogues())
    about = {"source": draw(names), "licence": draw(names), "split": draw(st.sampled_from(["train", "heldout"]))}
    extra = draw(st.dictionaries(st.sampled_from(["task", "cluster"]), names))
    return {"id": identity(messages), **about, "messages": messages, **extra}


@st.composite
def comparisons(draw):
    responses = draw(st.lists(texts, min_size=2, max_size=5, unique=True))
    ranks = draw(st.lists(st.integers(1, 4), min_size=len(responses), max_size=len(responses)))
    ranks = ranks if len(set(ranks)) > 1 else [*range(len(responses))]
    content = comparison(
        draw(dialogues("user", most=2)),
        responses,
        ranks,
        policies=draw(st.none() | st.lists(names, min_size=len(responses), max_size=len(responses))),
        labeller=draw(st.none() | names),
        round=draw(st.none() | names),
        batch=draw(st.none() | names),
        confidence=draw(st.none() | st.integers(0, 4).map(lambda quarters: quarters / 4)),
        strength=draw(st.none() | st.floats(0, 5)),
    )
    split = draw(st.sampled_from(["train", "heldout"]))
    return record(content | {"split": split}, draw(names), draw(names))


def back(rows):
    """The records of rows, as the command `convert` makes them."""
    made = []
    for row in rows:
        holds, parts = read(row)
        for part in parts:
            assert not isinstance(part, BadRow)
            if holds == "comparisons":
                made.append(record(part, part["source"], part["licence"]))
            else:
                made.append({"id": identity(part["messages"]), **part})
    return made


def pairwise(one):
    """A comparison as what a format of pairs can hold of it: each pair by itself, the better answer first."""
    made = []
    for pair in pairs_of(one):
        kept = {key: one[key] for key in CONTENT}
        ends = [one["ranks"][i] for i in pair] == [1, max(one["ranks"])]
        kept |= {"responses": [one["responses"][i] for i in pair], "ranks": [1, 2]}
        kept["policies"] = one["policies"] and [one["policies"][i] for i in pair]
        kept["strength"] = one["strength"] if ends else None
        made.append(record(kept | {"split": one["split"]}, one["source"], one["licence"]))
    return made


@given(demonstrations(), st.sampled_from(["openai", "sharegpt", "alpaca", "completion", "flan"]))
def test_a_demonstration_comes_back_the_same_or_is_refused(one, name):
    several = len([m for m in one["messages"] if m["role"] != "system"]) > 2
    system = one["messages"][0]["role"] == "system"
    if name == "flan" and (several or system):
        with pytest.raises(BadRow, match="more turns" if several else "no system message"):
            WRITABLE[name].write(one)
    else:
        assert back(WRITABLE[name].write(one)) == [one]


@given(comparisons(), st.sampled_from(["labelstudio", "argilla", "ranked"]))
def test_a_ranking_of_any_number_of_answers_comes_back_the_same(one, name):
    rows = WRITABLE[name].write(one)
    assert back(rows) == [one]


@given(comparisons(), st.sampled_from(["trl", "hh"]))
def test_a_ranking_becomes_its_pairs_with_all_that_they_can_say(one, name):
    if name == "hh" and one["prompt"][0]["role"] == "system":
        with pytest.raises(BadRow, match="no system message"):
            WRITABLE[name].write(one)
        return
    rows = WRITABLE[name].write(one)
    expected = pairwise(one)
    if name == "hh":
        expected = [record(line | {"strength": None}, line["source"], line["licence"]) for line in expected]
    assert back(rows) == expected
    assert {row["id"] for row in rows} == {one["id"]}


@given(comparisons())
def test_summaries_keep_the_order_shown_who_wrote_and_who_judged(one):
    one["prompt"] = one["prompt"][-1:]
    rows = WRITABLE["summarize"].write(record(one, one["source"], one["licence"]))
    for row, (better, worse) in zip(rows, pairs_of(one), strict=True):
        kept = back([row])[0]
        shown = sorted((better, worse))
        assert kept["responses"] == [one["responses"][i] for i in shown]
        assert kept["ranks"] == ([1, 2] if shown == [better, worse] else [2, 1])
        assert kept["policies"] == (one["policies"] and [one["policies"][i] for i in shown])
        unsaid = len(one["responses"]) > 2
        assert kept["confidence"] == (None if unsaid else one["confidence"])
        assert [kept[key] for key in ("labeller", "batch", "split")] == [
            one[key] for key in ("labeller", "batch", "split")
        ]


def test_a_text_with_a_transcripts_own_mark_is_no_transcript():
    content = comparison([{"role": "user", "content": "a\n\nHuman: b"}], ["x", "y"], [1, 2])
    with pytest.raises(BadRow, match="own mark"):
        WRITABLE["hh"].write(record(content, "s", "l"))


junk = st.sampled_from([None, True, 0, 7.5, float("nan"), "", "x", "\ud800", [], ["x"], [[]], {}, {"x": 1}, [{}]])


def damaged(value, data):
    """The value with one thing in it, at any depth, gone or replaced by what does not belong there."""
    if isinstance(value, dict | list) and value and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        if data.draw(st.integers(0, 4)) == 0:
            rest = value.copy()
            del rest[key]
            return rest
        inside = damaged(value[key], data)
        if isinstance(value, dict):
            return {**value, key: inside}
        return [*value[:key], inside, *value[key + 1 :]]
    return data.draw(junk)


@given(st.sampled_from(sorted(WRITABLE)), demonstrations(), comparisons(), st.data())
def test_a_damaged_row_gives_records_or_reasons_and_nothing_else(name, demonstration, ranked, data):
    try:
        to = WRITABLE[name]
        rows = to.write(demonstration if to.holds == "demonstrations" else ranked)
        _, parts = read(damaged(rows[0], data))
    except BadRow as e:
        assert str(e)
    else:
        for part in parts:
            if not isinstance(part, BadRow):
                whole = part.get("messages") or part["prompt"]
                assert whole and all(message["content"].strip() for message in whole)
