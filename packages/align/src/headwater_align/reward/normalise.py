"""The reward's scale: reference answers score mean 0 and deviation 1.

InstructGPT (section 3.5, end) sets a bias so that the labellers' demonstrations score 0 on average;
lm-human-preferences (`normalize_before`, `normalize_after` in train_reward.py) sets gain and bias for mean 0 and
deviation 1. The loss knows neither: only differences of rewards count in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .._contracts.errors import UserError
from ..chat_format import ChatFormat


def normalisation(reference: Tensor) -> tuple[float, float]:
    """(gain, bias) that give raw rewards [N] mean 0 and standard deviation 1.

    Raises:
        UserError: the rewards do not differ (the model learnt nothing), or are no numbers.
    """
    mean, deviation = reference.double().mean().item(), reference.double().std(unbiased=False).item()
    if not np.isfinite([mean, deviation]).all():
        raise UserError("the reward model's rewards are not finite; lower lr, or train in float32")
    if not deviation > 1e-6:
        raise UserError("the reward model gives every answer the same reward; raise lr or epochs, or add comparisons")
    return 1 / deviation, -mean / deviation


def demonstrations(
    records: Sequence[dict], chat: ChatFormat, limit: int, most: int, seed: int
) -> tuple[list[str], list[list[int]]]:
    """Ids of records, and their whole conversations in tokens: at most `most`, drawn by `seed` of those within `limit`.

    Args:
        records: of an instructions artefact.

    Raises:
        UserError: none is short enough.
    """
    order = np.random.default_rng(seed).permutation(len(records))
    rows = chat.render([record["messages"] for record in records])
    kept = sorted([int(n) for n in order if len(rows[n].ids) <= limit][:most])
    if not kept:
        raise UserError(f"no demonstration of at most {limit} tokens to normalise the reward by; raise max_length")
    return [records[n]["id"] for n in kept], [rows[n].ids for n in kept]
