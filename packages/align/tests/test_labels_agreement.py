"""Agreement against published values, hand-counted cases, and what must hold for any rankings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.labels.agreement import coincidences, midranks, ordinal_alpha, pair_counts, told, wins

NONE = None
KRIPPENDORFF = [  # 2011, Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


def test_alpha_of_the_published_example():
    units = [[v for v in unit if v is not None] for unit in zip(*KRIPPENDORFF, strict=True)]
    assert round(ordinal_alpha(coincidences(units, [1, 2, 3, 4, 5])), 3) == 0.815


def test_alpha_is_undefined_where_all_say_the_same_or_nobody_is_compared():
    assert np.isnan(ordinal_alpha(coincidences([[1, 1], [1, 1]], [1])))
    assert np.isnan(ordinal_alpha(coincidences([[1], [2]], [1, 2])))


def test_ties_take_the_mean_of_the_places_they_share():
    assert midranks([1, 1, 2, 3]) == [1 / 4, 1 / 4, 2.5 / 4, 3.5 / 4]
    assert midranks([2, 1]) == [0.75, 0.25]


def test_pairs_counted_by_hand():
    rankings = {"t": {"ann": [1, 2, 3], "bob": [1, 3, 2]}, "u": {"ann": [1, 1], "bob": [1, 2]}, "v": {"ann": [1, 2]}}
    # t: a<b and a<c alike, b<c not: 3 pairs, 2 alike. u: a tie against a decision: 1 pair, not decided by both.
    assert pair_counts(rankings).tolist() == [[3, 2, 3, 2], [1, 0, 0, 0], [0, 0, 0, 0]]
    found = told(rankings, resamples=200, seed=1)
    assert (found["tasks"], found["pairs"], found["strict_pairs"]) == (2, 4, 3)
    assert found["agreement"]["value"] == 0.5 and found["strict_agreement"]["value"] == pytest.approx(2 / 3)
    assert found["by_labeller"]["ann"]["ranked"] == 3 and found["by_labeller"]["bob"]["ranked"] == 2


def test_one_that_disagrees_with_all_others_is_found_out():
    rankings = {f"t{i}": {"ann": [1, 2, 3], "bob": [1, 2, 3], "odd": [3, 2, 1]} for i in range(5)}
    by_labeller = told(rankings, resamples=100, seed=1)["by_labeller"]
    assert by_labeller["odd"]["agreement"]["value"] == 0.0 and by_labeller["ann"]["agreement"]["value"] == 0.5


def test_without_a_shared_task_nothing_is_claimed():
    found = told({"t": {"ann": [1, 2]}}, resamples=100, seed=1)
    assert found["alpha"]["value"] is None and found["agreement"]["value"] is None


rankings = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.integers(1, 4), min_size=3, max_size=5), min_size=2, max_size=6
)


@given(rankings)
def test_two_who_say_the_same_agree_wholly(one):
    found = told({task: {"ann": ranks, "bob": ranks} for task, ranks in one.items()}, resamples=100, seed=1)
    assert found["agreement"]["value"] == 1.0
    assert found["alpha"]["value"] is None or found["alpha"]["value"] == pytest.approx(1)


def test_chance_gives_an_alpha_around_nothing_and_half_of_the_pairs():
    draw = np.random.default_rng(3)
    drawn = {f"t{i}": {who: (draw.permutation(4) + 1).tolist() for who in ("ann", "bob")} for i in range(400)}
    found = told(drawn, resamples=200, seed=1)
    assert found["alpha"]["low"] < 0 < found["alpha"]["high"]
    assert found["agreement"]["low"] < 0.5 < found["agreement"]["high"]


def test_wins_of_a_policy_count_pairs_with_another_policy_and_ties_half():
    assert wins(["a", "a", "b"], [1, 3, 2]) == {"a": 0.5, "b": 0.5}
    assert wins(["a", "b", "b", None], [1, 1, 2, 3]) == {"a": 0.75, "b": 0.25}
    assert wins(["a", "a", None], [1, 2, 3]) == {}
