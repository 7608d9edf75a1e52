"""Agreement and shares: the authors' published examples, and simulations whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval.review.agreement import alpha, alpha_with_interval, counts, percent_agreement
from headwater_eval.review.shares import Stratum, weighted_share

# Krippendorff 2011, section C: 12 units, 4 observers, missing values.
FOUR = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
# Sections A and B: two observers, binary and nominal, nothing missing.
BINARY = ["0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"]
NOMINAL = ["a a b b d c c c e d d a", "b a b b b c c c e d d d"]


def labels(observers: list[str]) -> list[list[str]]:
    return [[v for v in unit if v != "."] for unit in zip(*(row.split() for row in observers), strict=True)]


@pytest.mark.parametrize(("observers", "published"), [(FOUR, 0.743), (BINARY, 0.095), (NOMINAL, 0.692)])
def test_alpha_is_the_published_one(observers: list[str], published: float) -> None:
    assert alpha(counts(labels(observers))[0]) == pytest.approx(published, abs=0.0005)


def test_alpha_without_shared_items_or_without_variety_is_undefined() -> None:
    assert math.isnan(alpha(counts([["a"], ["b"]])[0]))
    assert math.isnan(alpha(counts([["a", "a"], ["a", "a"]])[0]))
    assert math.isnan(alpha_with_interval(counts([["a", "b"]])[0], 100, 1).low)  # one item: a value, no spread


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=12), st.randoms())
def test_alpha_is_blind_to_order_and_names_and_at_most_one(said: list[list[str]], rng) -> None:
    value = alpha(counts(said)[0])
    shuffled = [rng.sample(unit, len(unit)) for unit in rng.sample(said, len(said))]
    renamed = [[{"a": "z", "b": "y", "c": "x"}[v] for v in unit] for unit in shuffled]
    again = alpha(counts(renamed)[0])
    assert (math.isnan(value) and math.isnan(again)) or value == pytest.approx(again) and value <= 1 + 1e-12


def test_percent_agreement_counts_pairs_of_an_item_by_hand() -> None:
    # Item 1: 2 of 2 the same; item 2: of the pairs ab, ac, bc none; item 3 has one judgement.
    table, _ = counts([["a", "a"], ["a", "b", "c"], ["a"]])
    assert percent_agreement(table) == pytest.approx(2 / 5)


def test_the_interval_of_alpha_holds_the_truth_about_as_often_as_it_says() -> None:
    # Two observers who copy the truth with probability 0.8 and guess among 3 classes else: alpha tends to 0.64.
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        truth = rng.integers(0, 3, 60)
        seen = [np.where(rng.random(60) < 0.8, truth, rng.integers(0, 3, 60)) for _ in range(2)]
        table = np.stack([np.bincount([a, b], minlength=3) for a, b in zip(*seen, strict=True)])
        found = alpha_with_interval(table, 200, 1)
        inside += found.low <= 0.64 <= found.high
    assert 0.9 <= inside / 200 <= 0.99


def test_a_share_weighs_strata_by_their_size_not_by_their_sample() -> None:
    strata = [Stratum(90, np.array([0.0, 0.0, 1.0])), Stratum(10, np.array([1.0, 1.0]))]
    found = weighted_share(strata)
    assert found.value == pytest.approx(0.9 / 3 + 0.1)  # not 3 of 5
    assert found.low < found.value < found.high


def test_one_stratum_fully_at_random_has_about_wilsons_interval() -> None:
    found = weighted_share([Stratum(10**9, np.array([1.0] * 310 + [0.0] * 690))])
    assert (found.low, found.high) == pytest.approx((0.2821, 0.3393), abs=2e-3)


def test_what_no_one_found_in_few_answers_may_still_be_there() -> None:
    found = weighted_share([Stratum(500, np.zeros(4)), Stratum(100, np.zeros(4))])
    assert found.value == 0 and found.high > 0.3


def test_intervals_of_shares_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    sizes, rates, drawn = [600, 300, 100], [0.05, 0.3, 0.8], [10, 15, 15]
    population = [rng.random(n) < p for n, p in zip(sizes, rates, strict=True)]
    truth = np.concatenate(population).mean()
    inside = 0
    for _ in range(1000):
        found = weighted_share(
            [
                Stratum(len(held), rng.choice(held, n, replace=False).astype(float))
                for held, n in zip(population, drawn, strict=True)
            ]
        )
        inside += found.low <= truth <= found.high
    assert 0.93 <= inside / 1000 <= 1.0
