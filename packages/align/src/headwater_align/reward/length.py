"""What length alone tells: a judge that sees nothing but how long two answers are, and how near the reward is to it."""

from __future__ import annotations

import numpy as np


def fit_length(gaps: np.ndarray) -> float:
    """Weight w of P(the first is better) = sigmoid(w x (its tokens - the other's)), by maximum likelihood.

    There is no intercept, since which of two is called the first means nothing. Newton's method; a normal prior on
    the weight, of deviation 1 a standard deviation of the gaps, keeps it finite where the longer answer always wins.

    Args:
        gaps: float [pairs], tokens of the preferred answer less the other's, of the training pairs.
    """
    scale = float(np.sqrt(np.mean(gaps**2))) or 1.0
    x, weight = gaps / scale, 0.0
    for _ in range(50):
        wrong = 1 / (1 + np.exp(weight * x))
        step = (np.sum(wrong * x) - weight) / (np.sum(wrong * (1 - wrong) * x**2) + 1)
        weight += step
        if abs(step) < 1e-10:
            break
    return weight / scale


def length_loss(weight: float, gaps: np.ndarray) -> float:
    """-log P of what was preferred, nats a pair, as the length-only judge sees it; beside it stands the model's."""
    return float(np.logaddexp(0, -weight * gaps).mean())


def within_prompt_correlation(rewards: list[np.ndarray], tokens: list[np.ndarray]) -> float | None:
    """Pearson's correlation of reward and length, each less its prompt's mean; None where one is constant.

    Args:
        rewards, tokens: an array [K] a comparison.
    """
    r, n = (np.concatenate([of - of.mean() for of in column]) for column in (rewards, tokens))
    scale = float(np.sqrt(np.sum(r**2) * np.sum(n**2)))
    return float(np.sum(r * n)) / scale if scale > 0 else None
