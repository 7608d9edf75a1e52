"""Best-of-N sampling: what it would give, estimated from more samples than N."""

from __future__ import annotations

import math

import numpy as np


def weights(rewards: np.ndarray, n: int) -> np.ndarray:
    """How likely each of M samples is the best of N that are drawn from them without replacement.

    The mean of any quantity under these weights is an unbiased estimate of its mean under best-of-N sampling (Nakano et
    al. 2021, arXiv:2112.09332, appendix I): the i-th lowest of M is the best in C(i-1, N-1) of the C(M, N) draws.
    Samples of equal reward share what they have together.

    Args:
        rewards: [M].
        n: at most M.

    Returns:
        float64 [M], summing to 1.

    Raises:
        ValueError: N above M, or below 1.
    """
    m = len(rewards)
    if not 1 <= n <= m:
        raise ValueError(f"best of {n} needs at least {n} samples, not {m}")
    order = np.argsort(rewards, kind="stable")
    by_rank = np.array([math.comb(i, n - 1) / math.comb(m, n) for i in range(m)])
    found = np.empty(m)
    found[order] = by_rank
    for value in np.unique(rewards):
        alike = rewards == value
        found[alike] = found[alike].mean()
    return found


def kl(n: int) -> float:
    """KL of best-of-N from the policy that it samples from: log N - (N - 1) / N nats an answer.

    Exact where no two answers have one reward, else an upper bound (Stiennon et al. 2020, arXiv:2009.01325, appendix
    G.3; Beirami et al. 2024, arXiv:2401.01879, theorem 1).
    """
    return math.log(n) - (n - 1) / n
