"""pass@k against the definition itself, and an interval that stays where shares lie."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval.pass_at_k import mean_of_shares, pass_at_k
from headwater_eval.statistics import wilson


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_that_hold_one_which_passes(drawn) -> None:
    samples, passed, k = drawn
    choices = list(combinations([True] * passed + [False] * (samples - passed), k))
    assert pass_at_k(samples, passed, k) == pytest.approx(sum(any(c) for c in choices) / len(choices))


def test_pass_at_k_of_many_samples_is_what_exact_fractions_give() -> None:
    for passed in (1, 5, 60, 100, 101):
        exact = 1 - Fraction(comb(200 - passed, 100), comb(200, 100))
        assert pass_at_k(200, passed, 100) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("arguments", [(4, 2, 5), (4, 5, 1), (4, -1, 1), (4, 2, 0)])
def test_impossible_counts_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(*arguments)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_with_one_sample_an_item_the_interval_is_wilsons(passed) -> None:
    assert mean_of_shares([float(p) for p in passed]) == pytest.approx(wilson(sum(passed), len(passed)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_the_interval_holds_the_value_and_stays_inside(shares) -> None:
    value, stderr, low, high = mean_of_shares(shares)
    assert 0 <= low <= value <= high <= 1 and stderr >= 0 and value == pytest.approx(np.mean(shares))


def test_the_interval_covers_the_truth_in_about_95_of_100_studies() -> None:
    # items of different difficulty, 8 samples of each: the truth is the mean difficulty, 2 / 7
    rng, hits = np.random.default_rng(7), 0
    for _ in range(1000):
        shares = rng.binomial(8, rng.beta(2, 5, 40)) / 8
        _, _, low, high = mean_of_shares(list(shares))
        hits += low <= 2 / 7 <= high
    assert 925 <= hits <= 975


@pytest.mark.parametrize("shares", [[], [1.5], [-0.1, 0.5]])
def test_what_is_no_share_is_refused(shares) -> None:
    with pytest.raises(ValueError, match="shares"):
        mean_of_shares(shares)
