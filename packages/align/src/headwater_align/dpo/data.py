"""Comparisons in ids: all answers of one prompt together, each forwarded once whatever the number of its pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .._contracts.sequences import truncate
from ..batching import pad
from ..chat_format import ChatFormat
from ..engine import torch


@dataclass(frozen=True)
class Ranked:
    """The answers to one prompt."""

    id: str
    source: str
    rows: list[list[int]]
    """Prompt and answer in ids, an answer each."""
    prompt: int
    """Tokens of the prompt, the same in every row."""
    ranks: list[int]
    """1 = best; ties share a rank."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.rows))

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(map(len, self.rows))


@dataclass
class Prepared:
    """Comparisons ready for training, and what became of the others."""

    ranked: list[Ranked] = field(default_factory=list)
    cut: int = 0
    """Answers that lost their end to the length limit."""
    rejects: list[dict] = field(default_factory=list)
    """{"id", "reason"} of records of which the limit leaves nothing to compare."""


def prepare(records: Sequence[dict], chat: ChatFormat, limit: int) -> Prepared:
    """Render every answer, cut at `limit` tokens and count it; set aside what the limit makes incomparable."""
    made = Prepared()
    prompts = chat.prompts([record["prompt"] for record in records])
    for record, prompt in zip(records, prompts, strict=True):
        if len(prompt) >= limit:
            made.rejects.append({"id": record["id"], "reason": f"the prompt alone has {len(prompt)} tokens"})
            continue
        whole = [[*prompt, *answer, chat.end] for answer in chat.encode(record["responses"])]
        rows = [truncate(row, limit) for row in whole]
        alike = {tuple(row) for row, rank in zip(rows, record["ranks"], strict=True) if rank == min(record["ranks"])}
        if all(tuple(row) in alike for row in rows):
            made.rejects.append({"id": record["id"], "reason": "within the length limit the answers are the same"})
            continue
        made.cut += sum(len(row) > limit for row in whole)
        made.ranked.append(Ranked(record["id"], record["source"], rows, len(prompt), record["ranks"]))
    return made


def parts(ranked: Sequence[Ranked], size: int) -> Iterable[list[Ranked]]:
    """Whole prompts in groups of at most `size` answers, or one prompt that has more."""
    part: list[Ranked] = []
    for one in ranked:
        if part and sum(len(r.rows) for r in part) + len(one.rows) > size:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def microbatches(
    ranked: Sequence[Ranked], reference: dict[str, list[float]], size: int, filler: int, multiple: int = 8
) -> list[dict]:
    """Micro-batches of at most `size` answers, those of a prompt together.

    Keys: tokens, labels int64 [answers, positions]; loss_mask bool, the same shape, True for what an answer says;
    prompt int64 [answers], which prompt of the micro-batch; ranks int64 [answers]; reference float64 [answers].

    Args:
        reference: id -> log-probability of each answer under the reference, nats.
    """
    made = []
    for part in parts(ranked, size):
        rows = [row for one in part for row in one.rows]
        masks = [[False] * (one.prompt - 1) + [True] * (len(row) - one.prompt) for one in part for row in one.rows]
        made.append(
            {
                "tokens": pad([row[:-1] for row in rows], filler, multiple=multiple),
                "labels": pad([row[1:] for row in rows], filler, multiple=multiple),
                "loss_mask": pad(masks, False, multiple=multiple),
                "prompt": torch.tensor([n for n, one in enumerate(part) for _ in one.rows]),
                "ranks": torch.tensor([rank for one in part for rank in one.ranks]),
                "reference": torch.tensor([p for one in part for p in reference[one.id]], dtype=torch.float64),
            }
        )
    return made
