"""Label Studio's JSON export of comparison tasks: {"data": {...}, "annotations": [{"result": [...]}]}.

Two kinds of result are read: `pairwise` (the tags Pairwise and Text: {"selected": "left" | "right"}) and `ranker` (the
tags List and Ranker). A ranker without buckets gives one order; with buckets numbered from the best ("1", "rank 2"),
those of one bucket are tied. Each annotation is one labeller's comparison. Predictions are no annotations and are not
read; cancelled annotations are rejects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..conversation import BadRow
from .format import COMPARISON, Format, Row, carried, known
from .pairs import whole

PROMPTS = ("prompt", "question", "instruction")
PAIRS = (("answer1", "answer2"), ("text1", "text2"), ("response1", "response2"), ("left", "right"))


def read(row: Row) -> list[dict | BadRow]:
    data, annotations = row["data"], row.get("annotations")
    if not isinstance(data, dict):
        raise BadRow("data is no mapping of keys")
    if not isinstance(annotations, list) or not annotations:
        raise BadRow("no annotation")
    asked = next((data[key] for key in PROMPTS if data.get(key) is not None), None)
    prompt = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    made: list[dict | BadRow] = []
    for annotation in annotations:
        try:
            made.append(_judgement(data, prompt, annotation))
        except BadRow as e:
            made.append(e)
    return made


def _judgement(data: dict, prompt: list, annotation: Any) -> dict:
    if not isinstance(annotation, dict):
        raise BadRow("an annotation is no mapping of keys")
    if annotation.get("was_cancelled"):
        raise BadRow("discarded by the labeller")
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, dict) and result.get("type") in ("pairwise", "ranker"):
            value = result.get("value")
            reader = _pairwise if result["type"] == "pairwise" else _ranker
            responses, ranks, policies = reader(data, result, value if isinstance(value, dict) else {})
            about = known(data, (*COMPARISON, "strength")) | {"policies": policies}
            about["labeller"] = _labeller(annotation.get("completed_by"))
            return whole(prompt, responses, ranks, about)
    raise BadRow("an annotation without a comparison")


def _labeller(who: Any) -> Any:
    """Label Studio gives a number, or the user's data; an address is the better name."""
    return (who.get("email") or who.get("id")) if isinstance(who, dict) else who


def _pairwise(data: dict, result: Row, value: Row) -> tuple[list, list, Any]:
    selected = value.get("selected")
    if selected not in ("left", "right"):
        raise BadRow("broken ranking: neither left nor right is selected")
    named = tuple(str(result.get("to_name", "")).split(","))
    keys = next((pair for pair in (named, *PAIRS) if len(pair) == 2 and set(pair) <= set(data)), None)
    if keys is None:
        raise BadRow("the two answers are not in the task's data")
    return [data[key] for key in keys], [1, 2] if selected == "left" else [2, 1], data.get("policies")


def _ranker(data: dict, result: Row, value: Row) -> tuple[list, list, Any]:
    items = next((v for v in (data.get("items"), data.get("answers"), data.get("responses")) if v is not None), None)
    if not isinstance(items, list) or not all(isinstance(item, dict) and "id" in item for item in items):
        raise BadRow("the answers are no list of items with ids")
    rank_of = _ranks(value.get("ranker"), str(result.get("from_name", "")))
    names = [str(item["id"]) for item in items]
    if set(rank_of) != set(names):
        raise BadRow("broken ranking: not one rank an answer")
    texts = [item.get("body", item.get("text")) for item in items]
    policies = [item.get("policy") for item in items]
    known_policies = policies if any(policy is not None for policy in policies) else None
    return texts, [rank_of[name] for name in names], known_policies


def _ranks(ranker: Any, own_name: str) -> dict[str, int]:
    """Item -> rank, of an order (a list, or a dict with the tag's name as its only key) or of numbered buckets."""
    if isinstance(ranker, dict):
        # "_" holds what is not ranked yet; None is a bucket of other rows of a Parquet file.
        columns = {name: ids for name, ids in ranker.items() if ids is not None and not (name == "_" and not ids)}
        if not all(isinstance(ids, list) for ids in columns.values()):
            raise BadRow("broken ranking: a bucket is no list")
        if set(columns) != {own_name}:
            return _once([(id, _bucket_number(name)) for name, ids in columns.items() for id in ids])
        ranker = columns[own_name]
    if not isinstance(ranker, list):
        raise BadRow("broken ranking: no order and no buckets")
    return _once([(id, place) for place, id in enumerate(ranker, 1)])


def _once(places: Sequence[tuple[Any, int]]) -> dict[str, int]:
    found = {str(id): place for id, place in places}
    if len(found) != len(places):
        raise BadRow("broken ranking: an answer is ranked twice")
    return found


def _bucket_number(name: str) -> int:
    if name == "_":
        raise BadRow("broken ranking: not one rank an answer")
    number = re.search(r"(\d+)\s*$", name)
    if number is None:
        raise BadRow("broken ranking: a bucket's name does not end in its rank")
    return int(number[1])


def write(record: dict) -> list[Row]:
    policies = record["policies"] or [None] * len(record["responses"])
    items = [
        {"id": f"response-{i}", "body": text} | ({"policy": policy} if policy is not None else {})
        for i, (text, policy) in enumerate(zip(record["responses"], policies, strict=True), 1)
    ]
    buckets: dict[str, list[str]] = {}
    for item, rank in sorted(zip(items, record["ranks"], strict=True), key=lambda pair: pair[1]):
        buckets.setdefault(str(rank), []).append(item["id"])
    beside = tuple(key for key in COMPARISON if key != "labeller")
    data = {"prompt": record["prompt"], "items": items, **carried(record, (*beside, "strength"))}
    result = {"from_name": "rank", "to_name": "items", "type": "ranker", "value": {"ranker": buckets}}
    annotation = {"completed_by": record["labeller"], "was_cancelled": False, "result": [result]}
    return [{"data": data, "annotations": [annotation], "predictions": []}]


FORMAT = Format(
    "labelstudio",
    "comparisons",
    lambda row: "data" in row and bool({"annotations", "predictions"} & set(row)),
    read,
    write,
)
