"""Summarize-from-feedback (Stiennon et al., arXiv:2009.01325): who wrote and who judged two summaries of a post.

{"info": {"post", "title"?, "subreddit"?} or {"article", "title"?}, "summaries": [{"text", "policy", "note"}, ...],
 "choice": position of the better one, "worker", "batch", "split", "extra": {"confidence"}}

A post becomes the paper's query: SUBREDDIT, TITLE, POST and `TL;DR:`, the first where it is known; without a title, the
text alone.
"""

from __future__ import annotations

from typing import Any

from ..conversation import BadRow
from ..preference import pairs_of
from .format import Format, Row, carried, known, no_system, split_system
from .pairs import LOSES, whole

MIDDLE = 5  # of nine points from "surely the first" (1) to "surely the second" (9)


def read(row: Row) -> list[dict | BadRow]:
    summaries, choice = row["summaries"], row.get("choice")
    if not isinstance(summaries, list) or not all(isinstance(s, dict) for s in summaries):
        raise BadRow("summaries is no list of texts with policies")
    if isinstance(choice, bool) or not isinstance(choice, int) or not 0 <= choice < len(summaries):
        raise BadRow("broken ranking: choice is not the number of a summary")
    about = known(row, ("source", "licence", "split", "round"))
    about |= {"labeller": row.get("worker"), "batch": row.get("batch")}
    about["confidence"] = _sureness(row, choice) if len(summaries) == 2 else None
    policies = [summary.get("policy") for summary in summaries]
    about["policies"] = policies if any(policy is not None for policy in policies) else None
    ranks = [1 if i == choice else 2 for i in range(len(summaries))]
    prompt = [{"role": "user", "content": _question(row.get("info"))}]
    return [whole(prompt, [summary.get("text") for summary in summaries], ranks, about)]


def _question(info: Any) -> str:
    if not isinstance(info, dict):
        raise BadRow("info is no mapping of keys")
    text = info.get("post") or info.get("article")
    if not isinstance(text, str):
        raise BadRow("no post and no article")
    title, subreddit = (info.get(key) if isinstance(info.get(key), str) else "" for key in ("title", "subreddit"))
    if not title:
        return text
    lines = [f"SUBREDDIT: r/{subreddit}"] if subreddit else []
    return "\n\n".join([*lines, f"TITLE: {title}", f"POST: {text.strip()}", "TL;DR:"])


def _sureness(row: Row, choice: int) -> float | None:
    """Distance from the scale's middle, 0 to 1; None where it points to the other summary than `choice` does.

    The data's own description does not name the ends of the scale. Assumed is one that runs from the first summary to
    the second; a value that contradicts this is left out rather than read the other way.
    """
    extra = row.get("extra")
    points = extra.get("confidence") if isinstance(extra, dict) else None
    if isinstance(points, bool) or not isinstance(points, int | float) or not 1 <= points <= 9:
        return None
    towards = (points - MIDDLE) / (9 - MIDDLE) * (1 if choice == 1 else -1)
    return towards if towards >= 0 else None


def write(record: dict) -> list[Row]:
    system, turns = split_system(record["prompt"])
    no_system(system)
    if len(turns) != 1:
        raise BadRow("more turns than the format holds")
    made = []
    for better, worse in pairs_of(record):
        first, second = sorted((better, worse))  # the order in which they were shown stays
        choice = int(second == better)
        row = {
            "info": {"id": record["id"], "post": turns[0]["content"]},
            "summaries": [
                {"text": record["responses"][i], "policy": record["policies"] and record["policies"][i], "note": None}
                for i in (first, second)
            ],
            "choice": choice,
            "worker": record["labeller"],
            "batch": record["batch"],
            "split": {"train": "train", "heldout": "valid1"}.get(record.get("split") or ""),
            "extra": {"confidence": _points(record, choice)},
        }
        made.append(row | carried(record, ("source", "licence", "round")))
    return made


def _points(record: dict, choice: int) -> int | None:
    """The nearest of the nine points, for a pair; of more answers nobody said how sure they were of each two."""
    if record["confidence"] is None or len(record["responses"]) != 2:
        return None
    return MIDDLE + round(record["confidence"] * (9 - MIDDLE)) * (1 if choice == 1 else -1)


FORMAT = Format(
    "summarize",
    "comparisons",
    lambda row: "summaries" in row,
    read,
    write,
    f"{LOSES.replace(', and the order in which answers were shown', '')}; so is the strength; "
    "confidence keeps quarters; prompts of several messages are rejects",
)
