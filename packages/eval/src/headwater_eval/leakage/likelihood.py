"""Log-probabilities token by token: what every measure here but the written ones is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .._contracts.sequences import pad
from ..lm import Scorer


def token_logprobs(scorer: Scorer, rows: Sequence[Sequence[int]], batch_tokens: int) -> list[np.ndarray]:
    """Log-probability (nats) of each token of each row as the beginning of a document, float32 [tokens], in order.

    Args:
        rows: ids, none empty, none longer than the context.
        batch_tokens: of a forward pass, padding included (at least one row).
    """
    found: list[np.ndarray] = [np.empty(0, np.float32)] * len(rows)
    for batch in _batches(rows, batch_tokens):
        inputs = [[scorer.end_of_document, *rows[i][:-1]] for i in batch]
        at_rows = [r for r, i in enumerate(batch) for _ in rows[i]]
        positions = [position for i in batch for position in range(len(rows[i]))]
        labels = [token for i in batch for token in rows[i]]
        tensors = (torch.tensor(x) for x in (at_rows, positions, labels))
        nats, _ = scorer.scores(torch.from_numpy(pad(inputs, scorer.end_of_document)[0]), *tensors)
        ends = np.cumsum([len(rows[i]) for i in batch])[:-1]
        for i, part in zip(batch, np.split(nats.float().numpy(), ends), strict=True):
            found[i] = part
    return found


def _batches(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers, longest first, so that little is padding."""
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i)):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
