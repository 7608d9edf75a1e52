"""What people prefer: win rates against a policy, from rankings that say which policy wrote what."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import jsonl
from ..intervals import bootstrap_mean


def win_rates(labels: Sequence[Path], against: str, seed: int) -> dict[str, dict[str, float]]:
    """{policy: people_win_rate with interval, people_comparisons} of every policy that was ranked beside `against`.

    A tie counts one half. Comparisons of one prompt are not independent: they are averaged before the bootstrap over
    prompts.

    Args:
        labels: folders with labels.jsonl, preference records (contracts/schemas/preferences.md) with `policies`.
    """
    wins: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in labels:
        for record in jsonl.read(folder / "labels.jsonl"):
            ranked = list(zip(record.get("policies") or [], record["ranks"], strict=False))
            prompt = json.dumps(record["prompt"], sort_keys=True)
            for other, theirs in ranked:
                if other != against:
                    continue
                for policy, rank in ranked:
                    if policy and policy != against:
                        wins[policy][prompt].append(1.0 if rank < theirs else 0.5 if rank == theirs else 0.0)
    found = {}
    for policy, by_prompt in sorted(wins.items()):
        mean, low, high = bootstrap_mean([float(np.mean(w)) for w in by_prompt.values()], seed)
        found[policy] = {
            "people_win_rate": mean,
            "people_win_rate_low": low,
            "people_win_rate_high": high,
            "people_comparisons": float(sum(map(len, by_prompt.values()))),
        }
    return found
