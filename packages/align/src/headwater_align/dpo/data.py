"""Rankings as micro-batches for DPO's loss."""

from __future__ import annotations

from collections.abc import Sequence

from ..batching import pad
from ..engine import torch
from ..rankings import Ranking, whole_prompts


def microbatches(
    rankings: Sequence[Ranking], reference: dict[str, list[float]], size: int, filler: int, multiple: int = 8
) -> list[dict]:
    """Micro-batches of whole prompts, of at most `size` answers or, where one prompt has more, that prompt alone.

    Keys: tokens, labels int64 [answers, positions]; loss_mask bool, the same shape, True for what an answer says;
    prompt int64 [answers], which prompt of the micro-batch; ranks int64 [answers]; reference float64 [answers].

    Args:
        reference: id -> log-probability of each answer under the reference, nats.
    """
    made = []
    for part in whole_prompts(rankings, size):
        rows = [row for one in part for row in one.rows]
        made.append(
            {
                "tokens": pad([row[:-1] for row in rows], filler, multiple=multiple),
                "labels": pad([row[1:] for row in rows], filler, multiple=multiple),
                "loss_mask": pad([said for one in part for said in one.said], False, multiple=multiple),
                "prompt": torch.tensor([n for n, one in enumerate(part) for _ in one.rows]),
                "ranks": torch.tensor([rank for one in part for rank in one.ranks]),
                "reference": torch.tensor([p for one in part for p in reference[one.id]], dtype=torch.float64),
            }
        )
    return made
