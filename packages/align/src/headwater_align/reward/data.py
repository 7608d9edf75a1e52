"""Rankings as micro-batches for the reward model's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..batching import pad
from ..rankings import Ranking, whole_prompts


def collate(rankings: Sequence[Ranking], filler: int, size: int, multiple: int = 8) -> Callable[..., list[dict]]:
    """Row numbers -> micro-batches (see `microbatches`) of these rankings."""
    return lambda numbers: microbatches([rankings[n] for n in numbers], filler, size, multiple)


def microbatches(rankings: Sequence[Ranking], filler: int, size: int, multiple: int = 8) -> list[dict]:
    """Micro-batches of whole prompts, of at most `size` completions or, where one prompt has more, that prompt alone.

    Args:
        multiple: what positions are rounded up to.

    Returns:
        dicts of: tokens int64 [N, positions]; last int64 [N], each row's last position; prompt int64 [N], from 0;
        ranks int64 [N]; strength float32 [P], of each prompt.
    """
    made = []
    for part in whole_prompts(rankings, size):
        rows = [row for ranking in part for row in ranking.rows]
        made.append(
            {
                "tokens": pad(rows, filler, multiple=multiple),
                "last": torch.tensor([len(row) - 1 for row in rows]),
                "prompt": torch.tensor([number for number, ranking in enumerate(part) for _ in ranking.rows]),
                "ranks": torch.tensor([rank for ranking in part for rank in ranking.ranks]),
                "strength": torch.tensor([ranking.strength for ranking in part]),
            }
        )
    return made
