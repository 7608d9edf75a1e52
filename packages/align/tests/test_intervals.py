import numpy as np
import pytest

from headwater_align.intervals import bootstrap_mean, wilson


def test_wilson_gives_the_published_interval():
    # Newcombe 1998, table I: 81 of 263
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_wilson_never_leaves_zero_to_one():
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1 and 0 < wilson(0, 5)[1] < 1


def test_the_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        _, low, high = bootstrap_mean(draw.normal(2.0, 1.0, 60), seed=trial, resamples=400)
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_values_of_one_cluster_count_as_one():
    """Five values a cluster, all the same: the interval is that of the clusters, not of five times as many values."""
    draw = np.random.default_rng(1)
    hits = naive = 0
    for trial in range(200):
        means = draw.normal(2.0, 1.0, 40)
        values, clusters = np.repeat(means, 5), [f"c{i}" for i in range(40) for _ in range(5)]
        mean, low, high = bootstrap_mean(values, trial, 400, clusters)
        assert mean == pytest.approx(means.mean())
        hits += low <= 2.0 <= high
        _, low, high = bootstrap_mean(values, trial, 400)
        naive += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99 and naive / 200 < 0.75


def test_clusters_of_one_value_change_nothing():
    values = [0.3, 1.0, 2.5, -1.0]
    assert bootstrap_mean(values, 3, 100, list("abcd")) == bootstrap_mean(values, 3, 100)
