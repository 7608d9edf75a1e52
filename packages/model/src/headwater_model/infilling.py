"""What an encoder-decoder writes for a text with gaps, and what an encoder reads behind its masks.

The encoder of an encoder-decoder runs once; its decoder has no cache of keys and values, and reads at each step all
that it has written. One rank or tensor parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import headwater_model.cpu as cpu

import torch
from torch import Tensor

from ._contracts.errors import UserError
from ._contracts.sequences import pad
from .bert import Bert
from .generation import Generated, sample
from .special_ids import SpecialIds
from .t5 import T5


@torch.no_grad()
def write(
    model: T5,
    rows: Sequence[Sequence[int]],
    start: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
) -> list[Generated]:
    """Write a target for every row, until a stop id or `max_new_tokens`.

    Args:
        rows: ids to be read, none empty, ended as in training.
        start: id that starts the decoder (`SpecialIds.start`).
        temperature, top_k, top_p, seed: as in `generation.generate`.

    Returns:
        one `Generated` a row, in order.

    Raises:
        UserError: an empty row.
    """
    if not rows or max_new_tokens < 1:
        return [Generated([], []) for _ in rows]
    tokens, own = _rectangle(rows)
    padding = None if own.all() else ~own
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same text on every device
    stops = torch.tensor([*stop_ids], dtype=torch.long)
    written = torch.full((len(rows), 1), start)
    scores, done = torch.empty(len(rows), 0), torch.zeros(len(rows), dtype=torch.bool)
    training = model.training
    model.eval()
    try:
        encoded = model.encode(tokens, padding)
        while written.size(1) <= max_new_tokens and not done.all():
            out = model(tokens, written.to(cpu.DEVICE), padding, encoded=encoded)[:, -1].float().cpu()
            ids = sample(out, temperature, top_k, top_p, generator)
            scores = torch.cat([scores, out.log_softmax(-1).gather(-1, ids[:, None])], 1)
            written = torch.cat([written, ids[:, None]], 1)
            done |= torch.isin(ids, stops)
    finally:
        model.train(training)
    found = []
    for ids, row in zip(written[:, 1:], scores, strict=True):
        ends = torch.isin(ids, stops).nonzero()
        length = int(ends[0]) + 1 if len(ends) else len(ids)
        found.append(Generated(ids[:length].tolist(), row[:length].tolist()))
    return found


def put_back(shown: Sequence[int], written: Sequence[int], ids: SpecialIds) -> list[int]:
    """A text whose gaps are filled: each sentinel replaced by what follows it in the target.

    Args:
        shown: a row with sentinels, as `objectives.corrupt` makes it.
        written: its target, or what a model wrote; what stands before the first sentinel, and a sentinel's second span,
            are dropped. A sentinel of which nothing was written leaves nothing.
    """
    sentinels = set(ids.sentinels)
    spans: dict[int, list[int]] = {}
    span: list[int] = []
    for token in written:
        if token in sentinels:
            span = []
            spans.setdefault(token, span)
        else:
            span.append(token)
    return [token for seen in shown for token in (spans.get(seen, []) if seen in sentinels else [seen])]


class Guess(NamedTuple):
    """What may stand at one place."""

    place: int
    ids: list[int]
    """The likeliest first."""
    logprobs: list[float]


@torch.no_grad()
def fill_masks(model: Bert, rows: Sequence[Sequence[int]], mask: int, top: int = 1) -> list[list[Guess]]:
    """The `top` likeliest ids behind each mask, each guessed without knowing the others.

    Args:
        rows: ids with `mask` (`SpecialIds.mask`) where something is asked, none empty.

    Returns:
        for each row the guesses in order of their places.

    Raises:
        UserError: an empty row, or one longer than the model's context.
    """
    if not rows:
        return []
    tokens, own = _rectangle(rows)
    if tokens.size(1) > model.max_sequence_length:
        raise UserError(
            f"a row has {tokens.size(1)} ids, the model's context holds {model.max_sequence_length}; cut it"
        )
    training = model.training
    model.eval()
    try:
        logprobs, ids = model(tokens, (~own).long()).float().cpu().log_softmax(-1).topk(top)
    finally:
        model.train(training)
    return [
        [Guess(at, ids[i, at].tolist(), logprobs[i, at].tolist()) for at, token in enumerate(row) if token == mask]
        for i, row in enumerate(rows)
    ]


def _rectangle(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows padded on the right: int64 [rows, longest], and bool of the same shape, True where a row's own ids stand."""
    if not all(rows):
        raise UserError("a row is empty; give at least one id to read")
    tokens, own = pad(rows, 0)
    return torch.from_numpy(tokens).to(cpu.DEVICE), torch.from_numpy(own).to(cpu.DEVICE)
