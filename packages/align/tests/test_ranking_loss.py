"""The ranking loss against the papers' formulas, written out pair by pair in plain Python."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_align.ranking_loss import comparisons, ranking_losses


def by_hand(rewards, ranks, margin=0.0, eta=0.0):
    """One prompt's loss: mean over its pairs of -log of what Rao and Kupper give what was said, strengths e^reward."""
    strengths, theta = [math.exp(r) for r in rewards], math.exp(eta)
    losses = []
    for i, j in combinations(range(len(rewards)), 2):
        if ranks[i] == ranks[j]:
            if eta:
                one, other = strengths[i], strengths[j]
                tie = (theta**2 - 1) * one * other / ((one + theta * other) * (theta * one + other))
                losses.append(-math.log(tie))
            continue
        w, loser = (i, j) if ranks[i] < ranks[j] else (j, i)
        ahead = margin * (ranks[loser] - ranks[w]) / (max(ranks) - 1)
        losses.append(-math.log(strengths[w] / (strengths[w] + theta * math.exp(ahead) * strengths[loser])))
    return sum(losses) / len(losses) if losses else 0.0


def dense(ranks):
    places = sorted(set(ranks))
    return [places.index(rank) + 1 for rank in ranks]


PROMPTS = st.lists(
    st.lists(st.tuples(st.floats(-4, 4), st.integers(1, 5)), min_size=2, max_size=6), min_size=1, max_size=4
)


def tensors(prompts):
    rewards = torch.tensor([reward for answers in prompts for reward, _ in answers], dtype=torch.float64)
    number = torch.tensor([p for p, answers in enumerate(prompts) for _ in answers])
    ranks = [dense([rank for _, rank in answers]) for answers in prompts]
    return rewards, number, torch.tensor([rank for of in ranks for rank in of]), ranks


@settings(max_examples=40)
@given(PROMPTS, st.sampled_from([0.0, 0.4]), st.floats(0, 2))
def test_every_prompt_costs_the_mean_over_its_pairs(prompts, eta, margin):
    rewards, number, flat, ranks = tensors(prompts)
    margins = torch.full((len(prompts),), margin, dtype=torch.float64)
    found = ranking_losses(rewards, number, flat, margins, eta)
    wanted = [by_hand([r for r, _ in a], k, margin, eta) for a, k in zip(prompts, ranks, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=40)
@given(PROMPTS, st.floats(-5, 5))
def test_a_number_added_to_all_answers_of_a_prompt_changes_nothing(prompts, shift):
    rewards, number, ranks, _ = tensors(prompts)
    moved = torch.where(number == 0, rewards + shift, rewards)
    assert torch.allclose(ranking_losses(rewards, number, ranks), ranking_losses(moved, number, ranks), atol=1e-9)


def test_equal_rewards_cost_log_two_and_a_sure_right_order_nothing():
    rewards = torch.tensor([0.0, 0.0, 100.0, 0.0, -100.0, 0.0])
    losses = ranking_losses(rewards, torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 2, 1, 2, 1, 2]))
    assert losses.tolist() == pytest.approx([math.log(2), 0.0, 100.0])


def test_four_answers_give_six_pairs_and_one_prompt_of_them_weighs_as_much_as_one_pair():
    prompt, ranks = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([3, 1, 4, 2, 2, 1])
    winner, loser = comparisons(prompt, ranks)
    assert sorted(zip(winner.tolist(), loser.tolist(), strict=True)) == [
        (0, 2), (1, 0), (1, 2), (1, 3), (3, 0), (3, 2), (5, 4),
    ]  # fmt: skip
    losses = ranking_losses(torch.zeros(6), prompt, ranks)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)


def test_what_rao_and_kupper_give_better_worse_and_tie_sums_to_one():
    rewards, eta, prompt = torch.tensor([0.3, -0.9], dtype=torch.float64), 0.7, torch.zeros(2, dtype=torch.long)
    told = [ranking_losses(rewards, prompt, torch.tensor(ranks), None, eta) for ranks in ([1, 2], [2, 1], [1, 1])]
    assert sum(math.exp(-loss.item()) for loss in told) == pytest.approx(1)


def test_the_gradient_pulls_tied_answers_together():
    rewards = torch.tensor([1.0, 0.0], requires_grad=True)
    ranking_losses(rewards, torch.zeros(2, dtype=torch.long), torch.tensor([1, 1]), None, 0.5).sum().backward()
    assert rewards.grad[0] > 0 > rewards.grad[1]
