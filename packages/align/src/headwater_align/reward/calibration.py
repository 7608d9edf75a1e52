"""Whether sigmoid(r_w - r_l) can be taken at its word: of the pairs of which the model is 70% sure, are 70% right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..intervals import resampled_sums, wilson

COLUMNS = ("confidence", "accuracy", "accuracy_low", "accuracy_high", "pairs")


@dataclass(frozen=True)
class Bin:
    """Pairs of like confidence."""

    confidence: float
    """Mean of sigmoid(|r_w - r_l|), 0.5 to 1."""
    accuracy: float
    """Share of them in which the preferred answer has the higher reward; equal rewards count half."""
    low: float
    high: float
    """95% interval of the accuracy (Wilson), as if the pairs were independent."""
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """The reliability table, and its one figure."""

    bins: list[Bin]
    error: float
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599, eq. 3)."""
    error_low: float
    error_high: float
    """95% interval, bootstrap over prompts."""
    by_chance: float
    """What a perfectly calibrated model of these confidences would show on so few pairs, on average: the error is
    never negative, so noise alone makes one."""

    def csv(self) -> str:
        """The table: a line a bin."""
        lines = [",".join(COLUMNS)]
        for one in self.bins:
            lines.append(f"{one.confidence:.6f},{one.accuracy:.6f},{one.low:.6f},{one.high:.6f},{one.pairs}")
        return "\n".join(lines) + "\n"


def right(gaps: np.ndarray) -> np.ndarray:
    """Of each pair: 1 where the preferred answer has the higher score, 0 where the lower, 0.5 where both are equal."""
    return np.where(gaps == 0, 0.5, (gaps > 0).astype(float))


def calibration(gaps: np.ndarray, clusters: Sequence[int], bins: int, seed: int) -> Calibration:
    """Compare confidence with accuracy in `bins` bins of equally many pairs (Nguyen and O'Connor 2015,
    arXiv:1508.05154: bins of equal width would stand empty where a model is never sure).

    Args:
        gaps: float [pairs], reward of the preferred answer less the other's, in nats (without gain).
        clusters: int [pairs], the prompt of each pair.
        seed: of the bootstrap.
    """
    confidence = 1 / (1 + np.exp(-np.abs(gaps)))
    hit = right(gaps)
    number = np.empty(len(gaps), dtype=int)
    for place, members in enumerate(np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(gaps)))):
        number[members] = place
    count = int(number.max()) + 1
    table = []
    for place in range(count):
        hits, sure = hit[number == place], confidence[number == place]
        table.append(Bin(float(sure.mean()), float(hits.mean()), *wilson(float(hits.sum()), len(hits)), len(hits)))
    excess = np.zeros((len(gaps), count))
    excess[np.arange(len(gaps)), number] = hit - confidence
    error = float(np.abs(excess.sum(0)).sum() / len(gaps))
    sums = resampled_sums(np.column_stack([excess, np.ones(len(gaps))]), clusters, seed)
    low, high = np.quantile(np.abs(sums[:, :-1]).sum(1) / sums[:, -1], [0.025, 0.975])
    draw = np.random.default_rng(seed)
    chance = [
        np.abs(np.bincount(number, (draw.random(len(gaps)) < confidence) - confidence)).sum() / len(gaps)
        for _ in range(200)
    ]
    return Calibration(table, error, float(low), float(high), float(np.mean(chance)))
