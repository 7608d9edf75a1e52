"""Loss by source: which of the texts the model learns from it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .trainer import Batch, Loss, next_token_loss


def per_source_loss(names: Sequence[str], base: Loss = next_token_loss) -> Loss:
    """A loss function that also tells the loss of each source.

    Args:
        names: the sources, as `TrainingData.names` or `HeldOut.names`.
        base: what is minimised; its output and "loss_mask" have the shape of the batch's "source", int64
            [batch, positions], the place in `names` of each label's source.

    Returns:
        `base` with two more metrics a source, the same names on every rank: loss/NAME, mean nats over its counted
        positions, and share/NAME of the counted positions; where that is 0 the loss says nothing.
    """

    def loss(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Any]]:
        total, count, metrics = base(output, batch)
        nats, mask = output.detach(), batch.get("loss_mask")
        counted = torch.ones_like(nats) if mask is None else mask.to(nats.dtype)
        both = torch.stack([nats * counted, counted], -1).double().view(-1, 2)
        table = torch.zeros(len(names), 2, dtype=both.dtype, device=both.device)
        table.index_add_(0, batch["source"].reshape(-1), both)
        for name, (summed, own) in zip(names, table, strict=True):
            metrics |= {f"loss/{name}": (summed, own), f"share/{name}": (own, count)}
        return total, count, metrics

    return loss


def mean_by_source(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Loss of each source over several steps, every token counted once.

    Args:
        rows: what `Trainer.step` returned with `per_source_loss(names)`.

    Returns:
        loss/NAME -> mean nats; sources that did not occur, or were not told, are left out.
    """
    found = {}
    for name in names:
        weights = [row["count"] * row.get(f"share/{name}", 0.0) for row in rows]
        if any(weights):
            summed = sum(row[f"loss/{name}"] * weight for row, weight in zip(rows, weights, strict=True))
            found[f"loss/{name}"] = summed / sum(weights)
    return found
