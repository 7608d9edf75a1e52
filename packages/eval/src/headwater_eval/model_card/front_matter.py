"""The YAML at the head of a model card: what the Hugging Face hub reads (hub-docs, modelcard.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..report.inputs import Json
from ..report.units import finite, number, safe_text

HUB_LICENCES = frozenset(Path(__file__).with_name("hub_licences.txt").read_text("utf-8").split())
"""Licences that the hub has a name for (hub-docs, repositories-licenses); every other one is `other` with a name."""
TASK = {"type": "text-generation", "name": "Text generation"}


def licence(given: str | None, link: str | None) -> Json:
    """`license`, and for one that the hub does not know its name and link."""
    if given is None:
        return {}
    known = given.lower().removesuffix("-only").removesuffix("-or-later")
    if known in HUB_LICENCES:
        return {"license": known}
    name = "-".join(given.lower().split())
    return {"license": "other", "license_name": name, **({"license_link": link} if link else {})}


def model_index(name: str, scores: Mapping[str, Json], revision: str) -> list[Json]:
    """`model-index`: one result a task with its metrics; the interval stands in a metric's name.

    The format has no field for an interval. Parts of a task (a source, a category) and averages over tasks are left to
    the tables.

    Args:
        scores: rows of metrics.json, by TASK, TASK:METRIC or TASK:PART.
        revision: hash of the items that were asked.
    """
    results: dict[str, Json] = {}
    for key, row in scores.items():
        if not finite(row.get("value")):
            continue
        task, _, part = key.partition(":")
        metric = str(row.get("metric", part or "value"))
        if part not in ("", metric) or row.get("kind") == "average":
            continue
        result = results.setdefault(
            task,
            {"task": dict(TASK), "dataset": {"name": task, "type": task, "revision": revision}, "metrics": []},
        )
        result["metrics"].append(
            {"type": metric, "value": round(row["value"], 6), "name": f"{metric}{_told(row)}"}
        )  # fmt: skip
    return [{"name": name, "results": list(results.values())}] if results else []


def text(data: Mapping[str, Any]) -> str:
    """The YAML block, keys in the given order, empty ones left out.

    Texts are brought into one line of visible characters: one that held a line of three dashes would end the block.
    """
    held = {key: _one_line(value) for key, value in data.items() if value not in (None, [], {}, "")}
    return yaml.safe_dump(held, sort_keys=False, allow_unicode=True, width=100_000)


def metric_names(scores: Iterable[Json]) -> list[str]:
    """The metrics of the scores, each once."""
    return sorted({str(row["metric"]) for row in scores if row.get("metric")})


def _one_line(value: Any) -> Any:
    if isinstance(value, str):
        return " ".join(safe_text(value).split())
    if isinstance(value, Mapping):
        return {key: _one_line(inner) for key, inner in value.items()}
    return [_one_line(inner) for inner in value] if isinstance(value, list) else value


def _told(row: Json) -> str:
    facts = []
    if finite(row.get("low")) and finite(row.get("high")):
        facts.append(f"95% interval {number(row['low'])} to {number(row['high'])}")
    if finite(row.get("n")):
        facts.append(f"n {row['n']}")
    if finite(row.get("chance")):
        facts.append(f"chance {number(row['chance'])}")
    return f" ({', '.join(facts)})" if facts else ""
