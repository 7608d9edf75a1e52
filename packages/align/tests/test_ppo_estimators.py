import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_align import ppo
from headwater_align.ppo.controllers import KlController


def brute_gae(rewards, values, mask, gamma, lam):
    """GAE eq. 16 as a double sum over one episode's real tokens, in plain Python."""
    at = [t for t in range(len(mask)) if mask[t]]
    r, v = [rewards[t] for t in at], [values[t] for t in at] + [0.0]
    delta = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(at))]
    advantages = [0.0] * len(mask)
    for i, t in enumerate(at):
        advantages[t] = sum((gamma * lam) ** (j - i) * delta[j] for j in range(i, len(at)))
    return advantages


def masks(draw, batch, length):
    rows = draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=batch, max_size=batch))
    return torch.tensor(rows)


@st.composite
def episodes(draw):
    batch, length = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    mask = masks(draw, batch, length)
    mask[:, draw(st.integers(0, length - 1))] = True  # an episode has a token
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rewards, values = (torch.randn(batch, length, generator=numbers, dtype=torch.float64) for _ in range(2))
    return rewards, values, mask, draw(st.sampled_from([1.0, 0.9])), draw(st.sampled_from([0.0, 0.95, 1.0]))


@settings(max_examples=100, deadline=None)
@given(episodes())
def test_gae_equals_the_double_sum_of_its_definition(episode):
    rewards, values, mask, gamma, lam = episode
    advantages, returns = ppo.gae(rewards, values, mask, gamma, lam)
    for row in range(len(mask)):
        expected = brute_gae(*(x[row].tolist() for x in (rewards, values, mask)), gamma, lam)
        assert advantages[row].tolist() == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(returns, torch.where(mask, advantages + values, 0))


@settings(max_examples=50, deadline=None)
@given(episodes())
def test_what_stands_outside_the_mask_changes_nothing(episode):
    rewards, values, mask, gamma, lam = episode
    noise = torch.where(mask, 0.0, 7.0)
    clean = ppo.gae(rewards, values, mask, gamma, lam)
    noisy = ppo.gae(rewards + noise, values + noise, mask, gamma, lam)
    assert torch.equal(clean[0], noisy[0]) and torch.equal(clean[1], noisy[1])
    assert torch.equal(ppo.whiten(clean[0], mask), ppo.whiten(clean[0] + noise, mask))


def test_with_lambda_and_gamma_one_the_return_is_the_sum_of_rewards_to_come():
    rewards, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    _, returns = ppo.gae(rewards, torch.tensor([[0.3, -0.7, 0.1]]), mask, 1.0, 1.0)
    assert returns.tolist()[0] == pytest.approx([6.0, 5.0, 3.0])


def test_whitening_gives_mean_zero_and_variance_one_over_the_mask():
    x, mask = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, -99.0]]), torch.tensor([[True, True, False]] * 2)
    white = ppo.whiten(x, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask].var(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert not white[~mask].any()


def test_whitening_rewards_scales_them_and_keeps_their_mean():
    x, mask = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, -99.0]]), torch.tensor([[True, True, False]] * 2)
    white = ppo.whiten(x, mask, shift_mean=False)
    # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    expected = [3 + (v - 3) / math.sqrt(3.5) for v in (1, 2, 3, 6)]
    assert white[mask].tolist() == pytest.approx(expected, abs=1e-5)
    assert not white[~mask].any()


def test_explained_variance_is_one_for_perfect_values_and_zero_for_a_constant():
    returns, mask = torch.tensor([[1.0, 2.0, 50.0], [4.0, 5.0, 50.0]]), torch.tensor([[True, True, False]] * 2)
    assert ppo.explained_variance(returns.clone(), returns, mask).item() == 1
    assert ppo.explained_variance(torch.full((2, 3), 3.0), returns, mask).item() == pytest.approx(0)
    assert ppo.explained_variance(returns - 1, returns, mask).item() == pytest.approx(1 - 1 / 2.5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_kl_of_identical_policies_is_zero(estimator):
    logprobs = torch.tensor([[-0.1, -3.0, -20.0]])
    assert not ppo.kl_estimate(logprobs, logprobs.clone(), estimator).any()


@pytest.mark.parametrize(("estimator", "unbiased"), [("k1", True), ("k3", True), ("k2", False)])
def test_the_kl_estimators_average_to_the_true_kl(estimator, unbiased):
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    true = (policy * (policy / reference).log()).sum()
    mean = (policy * ppo.kl_estimate(policy.log(), reference.log(), estimator)).sum()
    assert math.isclose(mean, true, rel_tol=1e-5) == unbiased


def test_the_score_falls_on_the_last_token_and_each_token_pays_its_kl():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rewards = ppo.token_rewards(torch.tensor([5.0, -1.0]), torch.full((2, 3), 2.0), mask, kl_coef=0.1)
    assert torch.allclose(rewards, torch.tensor([[-0.2, 4.8, 0.0], [-0.2, -0.2, -1.2]]))


# (ratio, advantage) -> (loss, clipped), clip 0.2: only a step that gains beyond the range is cut off
CLIPPING = [
    (1.5, 1.0, -1.2, True),
    (1.5, -1.0, 1.5, False),
    (0.5, 1.0, -0.5, False),
    (0.5, -1.0, 0.8, True),
    (1.1, 1.0, -1.1, False),
    (1.0, -2.0, 2.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped"), CLIPPING)
def test_the_surrogate_is_clipped_where_a_step_gains_beyond_the_range(ratio, advantage, loss, clipped):
    logprobs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    losses, cut = ppo.policy_losses(logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), 0.2)
    losses.sum().backward()
    assert losses.item() == pytest.approx(loss)
    assert cut.item() == clipped
    assert (logprobs.grad.item() == 0) == clipped


# (new, old, return) -> loss, clip 0.2: half the worse of the squared errors of the new value and of its clipped twin
VALUES = [(1.0, 0.0, 1.0, 0.32, True), (0.1, 0.0, 1.0, 0.405, False), (-1.0, 0.0, 1.0, 2.0, False)]


@pytest.mark.parametrize(("new", "old", "goal", "loss", "clipped"), VALUES)
def test_a_value_may_not_gain_by_moving_far_from_the_old_one(new, old, goal, loss, clipped):
    losses, cut = ppo.value_losses(*(torch.tensor([[x]]) for x in (new, old, goal)), 0.2)
    assert losses.item() == pytest.approx(loss)
    assert cut.item() == clipped


def test_the_controller_raises_the_coefficient_above_target_and_lowers_it_below():
    assert ppo.adapt_kl_coef(0.1, 12.0, 6.0, 100, 10) == pytest.approx(0.1 * 1.02)  # error bounded at 0.2
    assert ppo.adapt_kl_coef(0.1, 0.0, 6.0, 100, 10) == pytest.approx(0.1 * 0.98)
    assert ppo.adapt_kl_coef(0.1, 6.0, 6.0, 100, 10) == 0.1


def test_a_fixed_controller_keeps_its_coefficient_and_an_adaptive_one_does_not():
    fixed, adaptive = KlController(0.1), KlController(0.1, target=6.0, horizon=100)
    for controller in (fixed, adaptive):
        controller.update(kl=3.0, episodes=10)
    assert fixed.coef == 0.1
    assert adaptive.coef == pytest.approx(0.1 * (1 - 0.2 * 0.1))  # error of -0.5, bounded at -0.2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ppo_finds_the_rewarded_token_of_a_bandit(seed):
    """Three-token answers over eight symbols; the score is the share of symbol 5. The optimum is known: 1."""
    draw = torch.Generator().manual_seed(seed)
    logits, values = (torch.zeros(shape, requires_grad=True) for shape in [(3, 8), (3,)])
    optimizer = torch.optim.Adam([logits, values], lr=0.05)
    reference = torch.zeros(3, 8).log_softmax(-1)
    mask = torch.ones(64, 3, dtype=torch.bool)

    def logprobs_of(table, tokens):
        return table.expand(64, 3, 8).gather(2, tokens[..., None])[..., 0]

    means = []
    for _ in range(60):
        with torch.no_grad():
            policy = logits.log_softmax(-1)
            tokens = torch.multinomial(policy.exp(), 64, replacement=True, generator=draw).T
            scores = (tokens == 5).float().mean(1)
            old, old_values = logprobs_of(policy, tokens), values.expand(64, 3).clone()
            kl = ppo.kl_estimate(old, logprobs_of(reference, tokens))
            advantages, returns = ppo.gae(ppo.token_rewards(scores, kl, mask, 0.01), old_values, mask, 1.0, 0.95)
            advantages = ppo.whiten(advantages, mask)
        means.append(scores.mean().item())
        for _ in range(4):
            optimizer.zero_grad()
            losses, _ = ppo.policy_losses(logprobs_of(logits.log_softmax(-1), tokens), old, advantages, 0.2)
            value, _ = ppo.value_losses(values.expand(64, 3), old_values, returns, 0.2)
            (ppo.masked_mean(losses, mask) + ppo.masked_mean(value, mask)).backward()
            optimizer.step()
    assert means[0] < 0.25
    assert means[-1] > 0.9
