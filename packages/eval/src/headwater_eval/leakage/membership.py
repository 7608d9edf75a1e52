"""Whether a document was trained on, told from the model's likelihood of it: three attacks and the gap behind them.

- loss: mean log-probability a token (Yeom et al. 2018, arXiv:1709.01604);
- Min-K%: the mean over the k% least likely tokens (Shi et al. 2023, arXiv:2310.16789, section 3);
- zlib: log-probability over the bytes that zlib needs, which corrects for text that is easy anyhow (Carlini et al.
  2021, arXiv:2012.07805, section 5.2).

An attack's strength is the chance that it ranks a training document above a held-out one (AUC; 0.5 is no leak).
Held-out documents must be like the trained ones, or the attack tells sources apart and not membership (Duan et al.
2024, arXiv:2402.07841): each is set beside a training document of its source and nearest length.
"""

from __future__ import annotations

import bisect
import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from ..statistics import Z95, Estimate
from .corpus import Facts

ATTACKS = ("loss", "min_k", "zlib")
BYTES_A_TOKEN = 8
"""More than a token has on average: a document that is longer than this is read to its last token that counts."""


class Pair(NamedTuple):
    """A training document and a held-out one of the same source and about the same length."""

    member: Facts
    other: Facts


def matched(train: Sequence[Facts], heldout: Sequence[Facts], most: int, longest_bytes: int) -> list[Pair]:
    """Each held-out document, in order, with the training document of its source that is nearest in length.

    No training document is used twice; a held-out one whose source has none left is left out.

    Args:
        most: pairs.
        longest_bytes: from here on lengths are alike: no more of a document is read.
    """
    free: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for i, document in enumerate(train):
        free[document.source].append((min(document.bytes, longest_bytes), i))
    for places in free.values():
        places.sort()
    pairs: list[Pair] = []
    for document in heldout:
        places = free[document.source]
        if len(pairs) == most or not places:
            continue
        length = min(document.bytes, longest_bytes)
        at = bisect.bisect_left(places, (length, -1))
        near = [j for j in (at - 1, at) if 0 <= j < len(places)]
        best = min(near, key=lambda j: (abs(places[j][0] - length), places[j][1]))
        pairs.append(Pair(train[places.pop(best)[1]], document))
    return pairs


def signals(logprobs: np.ndarray, text: str, lowest: float) -> dict[str, float]:
    """What each attack sees of a document, higher for what it takes for a training document.

    Args:
        logprobs: float [tokens], nats.
        text: that these tokens spell.
        lowest: share of the least likely tokens for Min-K%, at least one token.
    """
    worst = np.sort(logprobs.astype(float))[: max(1, int(lowest * len(logprobs)))]
    size = len(zlib.compress(text.encode("utf-8", "replace")))
    return {"loss": float(logprobs.mean(dtype=float)), "min_k": float(worst.mean()),
            "zlib": float(logprobs.sum(dtype=float)) / size}  # fmt: skip


def auc(members: np.ndarray, others: np.ndarray) -> Estimate:
    """The chance that a member's signal lies above another's, ties half: Mann-Whitney's statistic over m * n.

    The standard error is that of DeLong, DeLong, Clarke-Pearson 1988 (Biometrics 44:837-845), by which it is 0 where
    the two are wholly apart; the interval is Newcombe's score interval, which is not empty there.

    Args:
        members, others: float [m], [n], two or more each.
    """
    m, n = len(members), len(others)
    ranks = stats.rankdata(np.concatenate((members, others)))
    above_of_members = (ranks[:m] - stats.rankdata(members)) / n  # share of the others that each member lies above
    above_of_others = 1 - (ranks[m:] - stats.rankdata(others)) / m
    value = float(above_of_members.mean())
    stderr = math.sqrt(above_of_members.var(ddof=1) / m + above_of_others.var(ddof=1) / n)
    return Estimate(value, stderr, *_score_interval(value, m, n))


def _score_interval(value: float, m: int, n: int) -> tuple[float, float]:
    """The areas from which `value` is 1.96 of their own standard errors away (Newcombe 2006, Statistics in Medicine
    25:559-573, method 5)."""

    def away(area: float) -> float:
        return abs(value - area) - Z95 * math.sqrt(area_variance(area, m, n))

    edge = 1e-9  # at 0 and 1 the variance is 0, so they are always roots, and not the ones looked for
    low = float(optimize.brentq(away, 0, min(value, 1 - edge))) if value > 0 else 0.0
    high = float(optimize.brentq(away, max(value, edge), 1)) if value < 1 else 1.0
    return low, high


def area_variance(area: float, m: int, n: int) -> float:
    """Variance of the statistic where this is the true area and signals are exponential (Hanley, McNeil 1982, Radiology
    143:29-36), symmetric in both kinds as Newcombe's method 5 has it: (m + n) / 2 stands for m and n in two terms."""
    half = (m + n) / 2 - 1
    return area * (1 - area) * (1 + half * ((1 - area) / (2 - area) + area / (1 + area))) / (m * n)
