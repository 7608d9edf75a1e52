from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.conversation import BadRow
from headwater_align.preference import comparison, dense, pairs_of, record, strength_of

ASKED = [{"role": "user", "content": "Why?"}]


def test_four_answers_without_a_tie_give_six_pairs_best_first():
    made = comparison(ASKED, ["a", "b", "c", "d"], [3, 1, 4, 2])
    assert pairs_of(made) == [(1, 3), (1, 0), (1, 2), (3, 0), (3, 2), (0, 2)]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=9))
def test_every_pair_that_differs_in_rank_is_there_once_the_better_first(ranks):
    found = pairs_of({"ranks": ranks})
    assert all(ranks[i] < ranks[j] for i, j in found)
    assert len(found) == sum(a != b for a, b in combinations(ranks, 2)) == len(set(found))


@given(st.lists(st.floats(-9, 9) | st.integers(-9, 9), min_size=1))
def test_dense_ranks_keep_order_and_ties_and_leave_no_gap(values):
    ranks = dense(values)
    assert set(ranks) == set(range(1, len(set(values)) + 1))
    assert all((a < b) == (x < y) for (a, x), (b, y) in combinations(zip(ranks, values, strict=True), 2))


def test_the_strength_belongs_to_best_against_worst_only():
    made = comparison(ASKED, ["a", "b", "c"], [1, 2, 3], strength=2)
    assert [strength_of(made, *pair) for pair in pairs_of(made)] == [None, 2.0, None]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"responses": ["a"], "ranks": [1]}, "fewer than two answers"),
        ({"responses": ["a", " "]}, "empty completion"),
        ({"responses": ["a", None]}, "an answer is not text"),
        ({"responses": ["a", "\ud800"]}, "surrogate"),
        ({"responses": "ab"}, "no list"),
        ({"ranks": [1]}, "not one rank an answer"),
        ({"ranks": [1, "2"]}, "a rank is no number"),
        ({"ranks": [1, float("nan")]}, "a rank is no number"),
        ({"ranks": [True, False]}, "a rank is no number"),
        ({"ranks": None}, "no list of ranks"),
        ({"ranks": [2, 2]}, "all ranks are equal"),
        ({"responses": ["a", "a "]}, "the answers are equal"),
        ({"responses": ["a", "b", "a"], "ranks": [1, 2, 3]}, "equal answers with different ranks"),
        ({"prompt": [{"role": "robot", "content": "Why?"}]}, "unknown role"),
        ({"prompt": [*ASKED, {"role": "assistant", "content": "So."}]}, "does not end with the user"),
        ({"confidence": 7}, "confidence is not between"),
        ({"strength": -1}, "strength"),
        ({"policies": ["sft"]}, "policies do not match"),
        ({"labeller": ["ann"]}, "is no name"),
    ],
)
def test_what_is_no_comparison_is_refused_with_the_reason(changed, reason):
    good = {"prompt": ASKED, "responses": ["a", "b"], "ranks": [1, 2]}
    comparison(**good)
    with pytest.raises(BadRow, match=reason):
        comparison(**{**good, **changed})


def test_an_id_tells_judgements_apart_but_not_where_they_came_from():
    made = comparison(ASKED, ["a", "b"], [1, 2], labeller="ann")
    again = comparison(ASKED, ["a", "b"], [10, 30], labeller="ann")
    other = comparison(ASKED, ["a", "b"], [1, 2], labeller="bob")
    assert record(made, "s", "x")["id"] == record(again, "t", "y")["id"] != record(other, "s", "x")["id"]
