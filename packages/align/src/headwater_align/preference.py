"""A comparison as data: one prompt, K answers to it, and what somebody thought of them as ranks.

`{"prompt": messages that end with the user, "responses": [str, ...], "ranks": [int, ...], ...}`: rank 1 is best, ties
share a rank, ranks are dense. A pair is K = 2. The record of one labelling task of InstructGPT (arXiv:2203.02155,
section 3.5: K of 4 to 9 answers ranked at once) and of every pairwise format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from .conversation import BadRow, check, identity, is_unicode

CONTENT = ("prompt", "responses", "ranks", "policies", "labeller", "round", "batch", "confidence", "strength")
"""The keys of a comparison that say what was compared, by whom and how; all of them make its id."""


def comparison(
    prompt: Any,
    responses: Any,
    ranks: Any,
    policies: Any = None,
    labeller: Any = None,
    round: Any = None,  # noqa: A002  (the word of the field)
    batch: Any = None,
    confidence: Any = None,
    strength: Any = None,
) -> dict:
    """A well-formed comparison with the keys of CONTENT, or why it is none.

    Args:
        prompt: messages; the last one is the user's.
        responses: K >= 2 texts; outer white space is removed.
        ranks: a number an answer, a smaller one better; made dense, so 10, 30, 10 becomes 1, 2, 1.
        policies: who wrote each answer, None where unknown; or None.
        labeller, round, batch: names; numbers are taken as names.
        confidence: 0 to 1, the labeller's own.
        strength: how much better the best is than the worst, on the labeller's own scale; not negative.

    Raises:
        BadRow: the prompt is no conversation, an answer is empty, a ranking does not fit its answers or says nothing.
    """
    prompt = check(prompt, last="user")
    if not isinstance(responses, list | tuple):
        raise BadRow("the answers are no list")
    if len(responses) < 2:
        raise BadRow("fewer than two answers")
    if not all(isinstance(text, str) for text in responses):
        raise BadRow("an answer is not text")
    if not all(is_unicode(text) for text in responses):
        raise BadRow("text with half a surrogate pair")
    texts = [text.strip() for text in responses]
    if not all(texts):
        raise BadRow("empty completion")
    numbers = _dense(ranks, len(texts))
    if len(set(texts)) == 1:
        raise BadRow("the answers are equal")
    if len(set(numbers)) == 1:
        raise BadRow("all ranks are equal")
    if len(set(zip(texts, numbers, strict=True))) > len(set(texts)):
        raise BadRow("equal answers with different ranks")
    if policies is not None and (not isinstance(policies, list | tuple) or len(policies) != len(texts)):
        raise BadRow("policies do not match the answers")
    sure = _number(confidence, "confidence")
    if sure is not None and not 0 <= sure <= 1:
        raise BadRow("confidence is not between 0 and 1")
    gap = _number(strength, "strength")
    if gap is not None and gap < 0:
        raise BadRow("the better answer is the worse one by its strength")
    return {
        "prompt": prompt,
        "responses": texts,
        "ranks": numbers,
        "policies": None if policies is None else [_name(policy) for policy in policies],
        "labeller": _name(labeller),
        "round": _name(round),
        "batch": _name(batch),
        "confidence": sure,
        "strength": gap,
    }


def record(content: dict, source: str, licence: str) -> dict:
    """A line of a preferences artefact from a comparison: id, source, licence, then its content."""
    kept = {key: content[key] for key in CONTENT}
    return {"id": identity(kept), "source": source, "licence": licence, "split": content.get("split"), **kept}


def pairs_of(record: dict) -> list[tuple[int, int]]:
    """Every (better, worse) pair of a comparison's answers, as positions in `responses`."""
    return pairs(record["ranks"])


def pairs(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """Every (better, worse) pair of places that differ in rank, best first; ties give none.

    K ranks without a tie give K (K - 1) / 2 pairs (InstructGPT, eq. 1).
    """
    order = sorted(range(len(ranks)), key=lambda i: (ranks[i], i))
    return [(i, j) for i, j in combinations(order, 2) if ranks[i] < ranks[j]]


def strength_of(record: dict, better: int, worse: int) -> float | None:
    """The strength of one pair: known only of a best answer against a worst one."""
    ranks = record["ranks"]
    return record["strength"] if ranks[better] == 1 and ranks[worse] == max(ranks) else None


def _dense(ranks: Any, count: int) -> list[int]:
    if not isinstance(ranks, list | tuple):
        raise BadRow("broken ranking: no list of ranks")
    if len(ranks) != count:
        raise BadRow("broken ranking: not one rank an answer")
    if not all(_is_number(rank) for rank in ranks):
        raise BadRow("broken ranking: a rank is no number")
    return dense(ranks)


def dense(ranks: Sequence[float]) -> list[int]:
    """Ranks 1, 2, ... in the order of the numbers, equal ones alike."""
    place = {value: i for i, value in enumerate(sorted(set(ranks)), 1)}
    return [place[value] for value in ranks]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise BadRow(f"{what} is no number")
    return float(value)


def _name(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or not is_unicode(str(value)):
        raise BadRow("a labeller, round, batch or policy is no name")
    return str(value)
