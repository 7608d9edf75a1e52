"""What is said of a reward model, on rewards whose worth is known: a judge of length, a calibrated one, a sure one."""

import json
import math

import numpy as np
import pytest

from headwater_align.intervals import resampled_sums, wilson, wilson_clustered
from headwater_align.rankings import Ranking
from headwater_align.reward.calibration import calibration
from headwater_align.reward.judging import judge, reward_gaps
from headwater_align.reward.length import fit_length, length_loss


def rankings(count, seed, labellers=("x", "y"), k=2):
    """Comparisons of answers of 1 to 20 tokens to distinct prompts, the first the best."""
    draw = np.random.default_rng(seed)
    return [
        Ranking(
            f"r{i}", [[i, 7, *[5] * int(draw.integers(1, 21))] for _ in range(k)], list(range(1, k + 1)), 2,
            f"s{i % 3}", labellers[i % len(labellers)], 0.0,
        )
        for i in range(count)
    ]  # fmt: skip


def test_a_reward_that_only_likes_long_answers_is_visible():
    train, held = rankings(400, 1), rankings(300, 2)
    rewards = np.array([0.1 * n for ranking in held for n in ranking.answer_tokens])
    figures, _ = judge(train, held, rewards, 10, 1)
    by_length = figures["heldout_by_preferred_length"]
    assert by_length["longer"]["accuracy"] == 1 and by_length["shorter"]["accuracy"] == 0
    assert by_length["as long"]["accuracy"] == 0.5
    assert figures["reward_length_correlation"] == pytest.approx(1)
    always_longer = by_length["longer"]["length_only_accuracy"] == 1
    assert figures["accuracy_above_length_only"] == pytest.approx(0) or not always_longer
    json.dumps(figures)


def test_a_reward_that_knows_better_than_length_is_shown_to():
    train, held = rankings(400, 1), rankings(300, 2)
    figures, _ = judge(train, held, np.array([2.0, 1.0] * 300), 10, 1)
    assert figures["accuracy"] == 1 and figures["accuracy_low"] > 0.98
    assert figures["heldout_prompts"] == 300
    assert figures["accuracy_above_length_only_low"] > 0.4
    assert abs(figures["reward_length_correlation"]) < 0.2


def test_accuracy_is_told_by_source_and_by_labeller_where_they_are_known():
    held = rankings(300, 2, (None, "x", "y"))
    right = [ranking.labeller == "x" for ranking in held]
    figures, _ = judge(rankings(50, 1), held, np.array([[1.0, 0.0] if r else [0.0, 1.0] for r in right]).ravel(), 10, 1)
    assert {name: row["pairs"] for name, row in figures["heldout_by_source"].items()} == dict.fromkeys(
        ("s0", "s1", "s2"), 100
    )
    assert {name: row["accuracy"] for name, row in figures["heldout_by_labeller"].items()} == {"x": 1.0, "y": 0.0}


def test_pairs_of_one_prompt_do_not_narrow_the_interval():
    def width(k, count):
        held = rankings(count, 3, k=k)
        wrong = np.random.default_rng(4).random(count) < 0.4  # a prompt is ranked right throughout, or reversed
        rewards = np.concatenate([np.arange(k) if w else -np.arange(k) for w in wrong])
        figures, _ = judge(rankings(50, 1), held, rewards, 10, 1)
        return figures["accuracy_high"] - figures["accuracy_low"]

    assert width(5, 150) == pytest.approx(width(2, 150), rel=0.02)  # ten pairs a prompt say no more than one does


def test_pairs_that_vary_as_independent_ones_count_as_such():
    hits = (np.random.default_rng(7).random(4000) < 0.7).astype(float)
    assert wilson_clustered(hits, np.arange(4000) // 4) == pytest.approx(wilson(hits.sum(), 4000), abs=0.002)
    assert wilson_clustered(hits, np.arange(4000)) == wilson(hits.sum(), 4000)


def test_all_pairs_right_is_certain_for_as_many_prompts_only():
    assert wilson_clustered(np.ones(60), np.arange(60) // 6) == wilson(10, 10)


def test_the_bootstrap_of_sums_has_the_variance_of_the_clusters():
    values = np.random.default_rng(0).normal(size=200)
    rows = np.repeat(values, 3)[:, None]
    sums = resampled_sums(rows, np.repeat(np.arange(200), 3), seed=1)
    assert sums.std() == pytest.approx(3 * values.std() * math.sqrt(200), rel=0.1)


def test_gaps_follow_the_ranks_and_not_the_order_of_the_answers():
    one = Ranking("r", [[1], [2], [3]], [2, 1, 2], 0, "s", None, 0.0)
    assert one.pairs == [(1, 0), (1, 2)]
    assert reward_gaps([one], np.array([1.0, 5.0, 2.0])).tolist() == [4.0, 3.0]


def test_a_calibrated_judge_is_off_by_chance_alone_and_a_threefold_sure_one_by_more():
    draw = np.random.default_rng(5)
    size = draw.exponential(1.0, 6000)
    gaps = np.where(draw.random(6000) < 1 / (1 + np.exp(-size)), size, -size)
    honest, sure = (calibration(scale * gaps, list(range(6000)), 10, 1) for scale in (1, 3))
    assert honest.error < 2 * honest.by_chance
    assert sure.error_low > 3 * sure.by_chance
    assert sure.bins[-1].confidence > sure.bins[-1].high
    assert sum(one.pairs for one in honest.bins) == 6000
    assert honest.csv().splitlines()[0] == "confidence,accuracy,accuracy_low,accuracy_high,pairs"


def test_expected_calibration_error_by_hand():
    gaps = np.array([math.log(4), -math.log(4), math.log(4), math.log(4), 0.0, 0.0])
    told = calibration(gaps, list(range(6)), 1, 1)  # confidences .8 x 4 and .5 x 2, hits 1 0 1 1 and two halves
    assert told.bins[0].confidence == pytest.approx(0.7)
    assert told.bins[0].accuracy == pytest.approx(4 / 6)
    assert told.error == pytest.approx(0.7 - 4 / 6)


def test_the_weight_of_length_is_found_and_stays_finite_where_the_longer_always_wins():
    draw = np.random.default_rng(6)
    gaps = draw.normal(0, 10, 4000)
    weight = fit_length(np.where(draw.random(4000) < 1 / (1 + np.exp(-0.08 * gaps)), gaps, -gaps))
    assert weight == pytest.approx(0.08, rel=0.15)
    assert 0 < fit_length(np.abs(gaps)) < 10
    assert fit_length(-np.abs(gaps)) < 0
    assert length_loss(0.0, gaps) == pytest.approx(math.log(2))
    assert fit_length(np.zeros(3)) == 0
