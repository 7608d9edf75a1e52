"""How far a planted secret stands out among the secrets that could have stood in its place.

Carlini et al. 2019, "The Secret Sharer" (arXiv:1802.08232), section 4: rank all candidates by the model's
log-perplexity of the canary with each; exposure is log2 of their number less log2 of the secret's rank, in bits: 0 for
the last, log2 of the space for the first. A secret that was never read has 1.44 bits on average (1 / ln 2).
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from .._contracts.errors import UserError

FILE = "canaries.jsonl"
CHANCE = 1 / math.log(2)


def read(corpus: Path) -> list[dict[str, Any]]:
    """The canaries of a corpus artefact; none where it has no such file.

    Raises:
        UserError: a line is no canary.
    """
    path = corpus / FILE
    if not path.is_file():
        return []
    try:
        canaries = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for canary in canaries:
            assert canary["digits"] == len(canary["secret"]) and canary["repeats"] >= 0
            canary["prefix"] + canary["suffix"] + canary["id"]
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path}: a line is no canary; make the corpus again") from None
    return canaries


def candidates(canary: dict[str, Any], most: int, seed: int) -> list[str]:
    """Other secrets of its space: all of them where there are no more than `most`, else so many drawn at random."""
    space, digits = 10 ** canary["digits"], canary["digits"]
    if space - 1 <= most:
        numbers = range(space)
        return [text for i in numbers if (text := str(i).zfill(digits)) != canary["secret"]]
    salt = hashlib.sha256(f"{seed} {canary['id']}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(salt[:8], "big"))
    drawn: set[str] = set()
    while len(drawn) < most:
        drawn |= {str(i).zfill(digits) for i in rng.integers(0, space, most - len(drawn)).tolist()} - {canary["secret"]}
    return sorted(drawn)


def ranked(own: float, others: np.ndarray, space: int) -> float:
    """Exposure in bits by rank: exact where `others` are all other secrets, else estimated from the sample.

    From a sample of s (section 4.4) it is at most log2(s + 1).

    Args:
        own: the secret's log-perplexity (negative log-likelihood, nats).
        others: float [s], those of other secrets.
        space: how many secrets there are.
    """
    rank = 1 + int((others <= own).sum())
    return math.log2(min(space, len(others) + 1)) - math.log2(rank)


def extrapolated(own: float, others: np.ndarray, space: int) -> float:
    """Exposure in bits from a skew-normal distribution fitted to the candidates (section 4.4), beyond a sample's reach.

    At most log2(space), which is the first rank.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit looks at shapes that overflow on its way
        shape = stats.skewnorm.fit(others)
        below = float(stats.skewnorm.cdf(own, *shape))
    most = math.log2(space)
    return min(most, -math.log2(below)) if below > 0 else most
