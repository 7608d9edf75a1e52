"""From a stratified sample to all answers: shares that speak for what was not drawn too, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..statistics import Estimate, wilson


class Stratum(NamedTuple):
    """Reviewed answers of one stratum."""

    population: int
    """Answers in it, reviewed or not."""
    values: np.ndarray
    """float [n]: of each reviewed answer, the share of its reviewers who named the class."""


def weighted_share(strata: Sequence[Stratum]) -> Estimate:
    """Share of all answers that have a class, from a stratified sample of them.

    The estimate is Cochran's (1977, Sampling Techniques, eq. 5.1): strata by their size, not by how many were drawn.
    Its interval is Wilson's at an effective sample size (Franco, Little, Louis and Slud 2019, Journal of Survey
    Statistics and Methodology 7(3)): the smaller of what the design's variance (eq. 5.7) gives and Kish's
    1 / sum(W^2 / n) (1965), since the former is without bounds where few strata show the class at all. A stratum with
    one answer gets the spread of the whole.

    Strata in which nothing was reviewed are left out: the share then speaks for the others.

    Raises:
        ValueError: no stratum with a reviewed answer.
    """
    held = [s for s in strata if len(s.values)]
    if not held:
        raise ValueError("no reviewed answer")
    sizes = np.array([s.population for s in held], float)
    weights = sizes / sizes.sum()
    n = np.array([len(s.values) for s in held], float)
    share = float(min(max(sum(w * float(np.mean(s.values)) for w, s in zip(weights, held, strict=True)), 0.0), 1.0))
    effective = 1 / float((weights**2 / n).sum())
    spread = np.array([np.var(s.values, ddof=1) if len(s.values) > 1 else share * (1 - share) for s in held])
    variance = float((weights**2 * (1 - n / np.maximum(sizes, n)) * spread / n).sum())
    if variance > 0 and share * (1 - share) > 0:
        effective = max(1.0, min(effective, share * (1 - share) / variance))
    return wilson(share * effective, effective)
