"""Demonstrations as records, their split into train and held-out, and their files; both data stages use them."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from . import jsonl
from .conversation import BadRow, identity
from .overlap import ItemIndex
from .readers import Row, Source, rows
from .readers import demonstrations as read_demonstrations


def demonstrations(
    source: Source,
    phrasings: int,
    cap: int | None = None,
    items: ItemIndex | None = None,
    unseen: ItemIndex | None = None,
) -> tuple[list[dict], list[dict]]:
    """(records, rejects) of one source: each record {"id", "source", "licence", "split", "messages"}, each id once.

    `split` is what the row says itself, or None; `task` and `cluster` are there where the row says them.

    Refused are benchmark `items` and what belongs to `unseen` task clusters.
    With a cap the `cap` lowest ids are kept: ids are hashes, so this is a sample that does not depend on the order.
    """
    made: dict[str, dict] = {}
    refused = []
    for row in rows(source):
        try:
            for shown in read_demonstrations(row.value, phrasings):
                messages = shown["messages"]
                name = identity(messages)
                if name in made:
                    if shown.get("split") == "heldout":  # one of two equal rows says test: neither is trained on
                        made[name]["split"] = "heldout"
                    raise BadRow("duplicate")
                text = "\n".join(m["content"] for m in messages)
                if items is not None and items.found_in(text):
                    raise BadRow("holds a benchmark item")
                if unseen is not None and unseen.found_in(text):
                    raise BadRow("holds a row of a held-out cluster")
                about = {"id": name, "source": source.name, "licence": source.licence, "split": shown.get("split")}
                told = {key: shown[key] for key in ("task", "cluster") if key in shown}
                made[name] = {**about, "messages": messages, **told}
        except BadRow as e:
            refused.append(reject(row, e))
    return sorted(made.values(), key=lambda r: r["id"])[:cap], refused


def reject(row: Row, error: BadRow) -> dict:
    """A line of rejects.jsonl: where the row stands and why it was refused."""
    return {"source": row.source.name, "row": row.number, "reason": str(error)}


def write_split(out: Path, split: dict[str, list[dict]], rejects: list[dict]) -> None:
    """train.jsonl, heldout.jsonl and rejects.jsonl."""
    for name, lines in {**split, "rejects": rejects}.items():
        jsonl.write(out / f"{name}.jsonl", lines)


def read_split(artefact: Path, side: str) -> list[dict]:
    """The records of train.jsonl or heldout.jsonl."""
    return jsonl.read(artefact / f"{side}.jsonl")


def count(split: dict[str, list[dict]], rejects: list[dict]) -> dict:
    """Records by side and source, the realised mixture, and rejects by reason."""
    by_source: dict[str, Counter] = defaultdict(Counter)
    for side, records in split.items():
        for record in records:
            by_source[record["source"]][side] += 1
    total = sum(len(records) for records in split.values())
    return {
        **{side: len(records) for side, records in split.items()},
        "rejects": len(rejects),
        "rejects_by_reason": dict(sorted(Counter(r["reason"] for r in rejects).items())),
        "by_source": {
            name: {**{side: n[side] for side in split}, "share": round(n.total() / total, 6)}
            for name, n in sorted(by_source.items())
        },
    }
