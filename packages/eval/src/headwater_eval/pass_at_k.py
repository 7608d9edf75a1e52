"""pass@k: how likely one of k programs passes, from n >= k programs of an item (Chen et al. 2021, arXiv:2107.03374)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .statistics import Z95, Estimate


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The unbiased estimate of pass@k for one item (section 2.1, equation 1).

    1 - C(n - c, k) / C(n, k) for c passed of n samples, as the product 1 - prod(1 - k / i) over i = n - c + 1 .. n:
    the binomials themselves overflow (the paper's figure 3).

    Raises:
        ValueError: not 1 <= k <= samples, or not 0 <= passed <= samples.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ValueError(f"pass@{k} of {passed} passed among {samples} samples")
    if samples - passed < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))


def mean_of_shares(values: Sequence[float]) -> Estimate:
    """The mean of one value in [0, 1] an item, with an interval over items that stays inside [0, 1].

    Wilson's score interval at the effective number of items p (1 - p) / stderr^2 (Kish 1965; Korn and Graubard 1998 for
    proportions of surveys). With zeros and ones alone that is the interval of a proportion; where every item has the
    same value the number of items stands in for the effective one.

    Raises:
        ValueError: no value, or one outside [0, 1].
    """
    shares = np.asarray(values, float)
    n = len(shares)
    if n == 0 or shares.min() < 0 or shares.max() > 1:
        raise ValueError("shares lie in [0, 1], and there is at least one")
    p = float(shares.mean())
    variance = float(shares.var()) / n  # of zeros and ones: p (1 - p) / n, as in `statistics.wilson`
    effective = max(float(n), p * (1 - p) / variance) if variance > 0 else float(n)
    z2 = Z95**2
    centre = (p + z2 / (2 * effective)) / (1 + z2 / effective)
    half = Z95 / (1 + z2 / effective) * math.sqrt(p * (1 - p) / effective + z2 / (4 * effective * effective))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(p, math.sqrt(variance), min(low, p), max(high, p))
