"""Rankings in ids: the completions of one prompt, which of them are better, and who said so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._contracts.errors import UserError
from ._contracts.sequences import truncate
from ._contracts.stage import Run
from .batching import length_buckets
from .chat_format import ChatFormat
from .engine import Loaded, row_limit
from .instructions import read_split
from .preference import dense, pairs


@dataclass(frozen=True)
class Ranking:
    """One comparison of K completions."""

    id: str
    rows: list[list[int]]
    """The prompt with each completion, K of them."""
    ranks: list[int]
    """1 = best; dense, ties share a rank."""
    prompt_tokens: int
    """How many ids of each row are the prompt's."""
    source: str
    labeller: str | None
    strength: float
    """How much better the first is than the last, as the labeller said; 0 where they did not."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.rows))

    @property
    def prompt(self) -> tuple[int, ...]:
        """The prompt's ids: what comparisons that are not independent share."""
        return tuple(self.rows[0][: self.prompt_tokens])

    @property
    def answer_tokens(self) -> list[int]:
        """Tokens of each completion."""
        return [len(row) - self.prompt_tokens for row in self.rows]

    @property
    def said(self) -> list[list[bool]]:
        """Of each row, whether the id after each but the last is the completion's: what a loss or a score counts."""
        return [[False] * (self.prompt_tokens - 1) + [True] * tokens for tokens in self.answer_tokens]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) places of every pair that is no tie."""
        return pairs(self.ranks)

    @property
    def best(self) -> list[int]:
        """The first row of the best rank."""
        return self.rows[self.ranks.index(1)]


@dataclass
class Prepared:
    """Rankings ready for training, and what became of the others."""

    rankings: list[Ranking] = field(default_factory=list)
    answers_cut: int = 0
    """Completions that lost their end to the length limit."""
    answers_merged: int = 0
    """Completions left out because the limit made them equal to one of another rank."""
    rejects: list[dict] = field(default_factory=list)
    """{"id", "reason"} of records that could not be used."""


@dataclass(frozen=True)
class Comparisons:
    """What a run learns from, in ids."""

    train: Prepared
    heldout: Prepared
    batches: list[list[int]]
    """Rankings of `train` a step, over all epochs."""
    chat: ChatFormat
    limit: int
    """Tokens of prompt and completion."""


def read(run: Run, loaded: Loaded) -> Comparisons:
    """Both sides of the input `preferences`, and the plan of batches; a function of config and inputs alone.

    Raises:
        UserError: nothing to train on or nothing held out.
    """
    config = run.config
    chat = ChatFormat(loaded.tokenizer)
    limit = row_limit(config.max_length, loaded)
    train, heldout = (prepare(read_split(run.inputs["preferences"], s), chat, limit) for s in ("train", "heldout"))
    if not train.rankings or not heldout.rankings:
        empty = train if not train.rankings else heldout
        why = f" ({len(empty.rejects)} set aside; the first: {empty.rejects[0]['reason']})" if empty.rejects else ""
        raise UserError(f"no comparison to train on or none held out{why}; give more preferences or raise max_length")
    lengths = [ranking.longest for ranking in train.rankings]
    epochs = [length_buckets(lengths, config.batch_size, config.seed, epoch) for epoch in range(config.epochs)]
    return Comparisons(train, heldout, [batch for epoch in epochs for batch in epoch], chat, limit)


def prepare(records: Sequence[dict], chat: ChatFormat, limit: int) -> Prepared:
    """Render every completion with its prompt, cut at `limit` tokens, count what was cut, set aside what is no ranking.

    A prompt is never cut: one that leaves no room for an answer is set aside.

    Args:
        records: of a preferences artefact, schema 2.
        limit: tokens of prompt and completion.
    """
    made = Prepared()
    usable = []
    for record in records:
        fault = _fault(record)
        if fault:
            made.rejects.append({"id": str(record.get("id")), "reason": fault})
        else:
            usable.append(record)
    prompts = chat.prompts([r["prompt"] for r in usable])
    said = iter(chat.encode([text for r in usable for text in r["responses"]]))
    for record, prompt in zip(usable, prompts, strict=True):
        rows = [[*prompt, *next(said), chat.end] for _ in record["responses"]]
        if len(prompt) >= limit:
            made.rejects.append({"id": record["id"], "reason": "the prompt alone fills the row"})
            continue
        cut = [truncate(row, limit) for row in rows]
        kept = _told_apart(cut, record["ranks"])
        ranks = dense([record["ranks"][place] for place in kept])
        if len(set(ranks)) < 2:
            reason = "within the length limit answers of different rank are the same"
            made.rejects.append({"id": record["id"], "reason": reason})
            continue
        made.answers_merged += len(rows) - len(kept)
        made.answers_cut += sum(len(rows[place]) > limit for place in kept)
        made.rankings.append(
            Ranking(
                record["id"],
                [cut[place] for place in kept],
                ranks,
                len(prompt),
                record["source"],
                record.get("labeller"),
                record.get("strength") or 0.0,
            )
        )
    return made


def _fault(record: dict) -> str:
    """Why a record is no ranking, or an empty string."""
    responses, ranks = record.get("responses"), record.get("ranks")
    if not isinstance(responses, list) or not isinstance(ranks, list) or not record.get("prompt"):
        return "no prompt, responses and ranks"
    if len(responses) < 2:
        return "fewer than two answers"
    if not all(isinstance(text, str) and text.strip() for text in responses):
        return "empty completion"
    if len(ranks) != len(responses) or not all(_is_rank(rank) for rank in ranks):
        return "broken ranking: not one whole number an answer"
    return "all ranks are equal" if len(set(ranks)) == 1 else ""


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _told_apart(rows: Sequence[Sequence[int]], ranks: Sequence[int]) -> list[int]:
    """Places of the rows that are equal to none of another rank."""
    seen: dict[tuple[int, ...], set[int]] = {}
    for row, rank in zip(rows, ranks, strict=True):
        seen.setdefault(tuple(row), set()).add(rank)
    return [place for place, row in enumerate(rows) if len(seen[tuple(row)]) == 1]


def whole_prompts(rankings: Sequence[Ranking], size: int) -> Iterator[list[Ranking]]:
    """Rankings in groups of at most `size` completions; one that has more stands alone."""
    part: list[Ranking] = []
    for ranking in rankings:
        if part and sum(len(r.rows) for r in part) + len(ranking.rows) > size:
            yield part
            part = []
        part.append(ranking)
    if part:
        yield part
