"""What a reward model is worth on held-out comparisons: accuracy with intervals, beside what length alone tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..intervals import resampled_sums, wilson_clustered
from ..rankings import Ranking
from .calibration import Calibration, calibration, right
from .length import fit_length, length_loss, within_prompt_correlation


@dataclass(frozen=True)
class Pairs:
    """Every pair of some rankings that is no tie, each array [pairs]."""

    tokens: np.ndarray
    """float, tokens of the preferred answer less the other's."""
    clusters: np.ndarray
    """int, a number a prompt: pairs of one prompt are not independent, whoever compared."""
    sources: list[str]
    labellers: list[str | None]

    @classmethod
    def of(cls, rankings: Sequence[Ranking]) -> Pairs:
        """In the order of the rankings and of `Ranking.pairs`."""
        numbers: dict[tuple[int, ...], int] = {}
        tokens: list[int] = []
        clusters: list[int] = []
        sources: list[str] = []
        labellers: list[str | None] = []
        for ranking in rankings:
            length, number = ranking.answer_tokens, numbers.setdefault(ranking.prompt, len(numbers))
            for better, worse in ranking.pairs:
                tokens.append(length[better] - length[worse])
                clusters.append(number)
                sources.append(ranking.source)
                labellers.append(ranking.labeller)
        return cls(np.array(tokens, float), np.array(clusters, int), sources, labellers)


def reward_gaps(rankings: Sequence[Ranking], rewards: np.ndarray) -> np.ndarray:
    """Reward of the preferred answer less the other's, [pairs], in the order of `Pairs.of`.

    Args:
        rewards: [completions], in the order of the rankings and their rows.
    """
    gaps, start = [], 0
    for ranking in rankings:
        own = rewards[start : start + len(ranking.rows)]
        gaps += [float(own[better] - own[worse]) for better, worse in ranking.pairs]
        start += len(ranking.rows)
    return np.array(gaps)


def share(values: np.ndarray, clusters: np.ndarray, name: str) -> dict[str, float]:
    """{name, name_low, name_high}: mean of hits and its 95% interval, which minds what prompt the pairs are of."""
    low, high = wilson_clustered(values, clusters.tolist())
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def judge(
    train: Sequence[Ranking], heldout: Sequence[Ranking], rewards: np.ndarray, bins: int, seed: int
) -> tuple[dict, Calibration]:
    """Figures of a reward model on held-out rankings; ties in the labels are in none of them.

    Args:
        rewards: [held-out completions], raw (without gain and bias).
        seed: of the bootstrap.
    """
    pairs, gaps = Pairs.of(heldout), reward_gaps(heldout, rewards)
    weight = fit_length(Pairs.of(train).tokens)
    hits, by_length = right(gaps), right(weight * pairs.tokens)

    def among(belongs: np.ndarray) -> dict[str, float]:
        return {
            "pairs": int(belongs.sum()),
            **share(hits[belongs], pairs.clusters[belongs], "accuracy"),
            "length_only_accuracy": float(by_length[belongs].mean()),
        }

    def by(names: Sequence[str | None]) -> dict[str, dict[str, float]]:
        return {name: among(np.array([n == name for n in names])) for name in sorted({n for n in names if n})}

    above = hits - by_length
    sums = resampled_sums(np.column_stack([above, np.ones(len(above))]), pairs.clusters.tolist(), seed)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    starts = np.cumsum([0, *(len(ranking.rows) for ranking in heldout)])
    of_rankings = [rewards[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    tokens = [np.array(ranking.answer_tokens, float) for ranking in heldout]
    told = calibration(gaps, pairs.clusters.tolist(), bins, seed)
    figures: dict = {
        **share(hits, pairs.clusters, "accuracy"),
        "heldout_prompts": len(np.unique(pairs.clusters)),
        "length_only_accuracy": float(by_length.mean()),
        "accuracy_above_length_only": float(above.mean()),
        "accuracy_above_length_only_low": float(low),
        "accuracy_above_length_only_high": float(high),
        "length_only_loss": length_loss(weight, pairs.tokens),
        "reward_length_correlation": within_prompt_correlation(of_rankings, tokens),
        "expected_calibration_error": told.error,
        "expected_calibration_error_low": told.error_low,
        "expected_calibration_error_high": told.error_high,
        "calibration_error_by_chance": told.by_chance,
        "heldout_by_source": by(pairs.sources),
    }
    if any(pairs.labellers):
        figures["heldout_by_labeller"] = by(pairs.labellers)
    longer = {"longer": pairs.tokens > 0, "shorter": pairs.tokens < 0, "as long": pairs.tokens == 0}
    figures["heldout_by_preferred_length"] = {name: among(of) for name, of in longer.items() if of.any()}
    return figures, told
