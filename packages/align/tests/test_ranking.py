import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.dpo import dpo_losses
from headwater_align.ranking import ranking_losses


def cost(gap: float) -> float:
    """-log sigmoid(gap)."""
    return math.log1p(math.exp(-gap))


def losses(rewards, prompt, ranks, margins=None):
    return ranking_losses(*(torch.tensor(x) for x in (rewards, prompt, ranks)), margins)


def test_three_ranked_answers_cost_the_mean_of_their_three_comparisons():
    found = losses([2.0, 0.5, -1.0], [0, 0, 0], [1, 2, 3])
    assert found.tolist() == pytest.approx([(cost(1.5) + cost(1.5) + cost(3.0)) / 3])


def test_answers_that_tie_are_not_compared_and_the_prompts_not_with_each_other():
    found = losses([1.0, 0.0, 5.0, 3.0, 3.0], [1, 0, 0, 1, 1], [2, 2, 1, 1, 1])
    assert found.tolist() == pytest.approx([cost(5.0), (cost(2.0) + cost(2.0)) / 2])


def test_a_prompt_whose_answers_all_tie_costs_nothing_and_teaches_nothing():
    rewards = torch.tensor([1.0, 0.0, 0.0, 2.0], requires_grad=True)
    found = ranking_losses(rewards, torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 1, 2]))
    found.sum().backward()
    assert found.tolist() == pytest.approx([0.0, cost(-2.0)])
    assert rewards.grad[:2].tolist() == [0, 0] and rewards.grad[2] < 0 < rewards.grad[3]


def test_the_margin_is_of_the_first_over_the_last_and_shared_out_by_rank():
    found = losses([2.0, 0.5, -1.0, 1.0, 0.0], [0, 0, 0, 1, 1], [1, 2, 3, 1, 2], torch.tensor([2.0, 0.5]))
    assert found.tolist() == pytest.approx([(cost(0.5) + cost(0.5) + cost(1.0)) / 3, cost(0.5)])


@given(st.permutations(range(7)))
def test_the_order_of_the_answers_changes_nothing(order):
    rewards = torch.tensor([0.1, -2.0, 3.0, 0.7, 1.0, -1.0, 0.0])
    prompt, ranks = torch.tensor([0, 0, 0, 0, 1, 1, 1]), torch.tensor([1, 3, 2, 2, 2, 1, 3])
    shuffled = ranking_losses(rewards[order], prompt[order], ranks[order])
    torch.testing.assert_close(shuffled, ranking_losses(rewards, prompt, ranks))


def test_dpo_costs_log_two_where_policy_and_reference_agree_and_smoothing_hedges():
    same = dpo_losses(*(torch.tensor([x]) for x in (-5.0, -9.0, -5.0, -9.0)), beta=0.1)
    assert same.item() == pytest.approx(math.log(2))
    sides = [torch.tensor([x]) for x in (-4.0, -9.0, -5.0, -8.0)]  # h = (1) - (-1) = 2
    assert dpo_losses(*sides, beta=0.5).item() == pytest.approx(cost(1.0))
    hedged = dpo_losses(*sides, beta=0.5, label_smoothing=0.2)
    assert hedged.item() == pytest.approx(0.8 * cost(1.0) + 0.2 * cost(-1.0))
