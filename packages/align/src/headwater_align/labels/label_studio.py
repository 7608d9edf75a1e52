"""Label Studio: the labelling configuration and the tasks, and its JSON export as it comes back.

Ranks are buckets (labelstud.io/tags/ranker): responses in one bucket share its rank, so ties can be said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from .rankings import Ranking, Reject, number
from .tasks import SURE, Task, visible

RANK, CONFIDENCE, COMMENT = "rank", "confidence", "comment"


def config(most: int) -> str:
    """The labelling configuration (1.x) for tasks of at most `most` responses."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Style").text = ".htx-text, .htx-ranker-item { white-space: pre-wrap; }"
    ElementTree.SubElement(view, "Header", value="What was asked")
    ElementTree.SubElement(view, "Text", name="prompt", value="$prompt")
    ElementTree.SubElement(view, "Header", value="Drag every response to its rank; equally good ones share a rank")
    ElementTree.SubElement(view, "List", name="responses", value="$responses", title="Responses")
    ranker = ElementTree.SubElement(view, "Ranker", name=RANK, toName="responses")
    for rank in range(1, most + 1):
        ElementTree.SubElement(ranker, "Bucket", name=str(rank), title=f"{rank}{' (best)' if rank == 1 else ''}")
    choices = ElementTree.SubElement(view, "Choices", name=CONFIDENCE, toName="prompt", choice="single-radio")
    for value, told in SURE.items():
        ElementTree.SubElement(choices, "Choice", value=value, hint=told)
    ElementTree.SubElement(view, "TextArea", name=COMMENT, toName="prompt", rows="2", maxSubmissions="1")
    ElementTree.indent(view, " ")
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def write(tasks: Sequence[Task], labeller: str, seed: int) -> str:
    """Tasks in Label Studio's basic JSON format, as `config` reads them."""
    made = []
    for task in tasks:
        responses = [
            {"id": name, "title": chr(ord("A") + place), "body": visible(text)}
            for place, (name, text) in enumerate(task.shown_to(labeller, seed))
        ]
        data = {"task": task.task, "labeller": labeller, "prompt": task.prompt_text(), "responses": responses}
        made.append({"data": data})
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def read(exported: list[Any], file: str) -> Iterator[Ranking | Reject]:
    """The rankings of a JSON export (not JSON-MIN).

    The labeller is the annotation's `completed_by` (an account's number, or an object with its e-mail address), else
    the one that the task was made for. A cancelled annotation is a skipped task.
    """
    for row, entry in enumerate(exported, 1):
        data = entry.get("data") if isinstance(entry, dict) else None
        if not isinstance(data, dict):
            yield Reject(
                file, row, "", "", "no task with data; export from Label Studio as JSON, not as JSON-MIN or CSV"
            )
            continue
        task, meant = str(data.get("task") or ""), str(data.get("labeller") or "")
        annotations = entry.get("annotations")
        for annotation in annotations if isinstance(annotations, list) else []:
            if not isinstance(annotation, dict):
                yield Reject(file, row, task, meant, "an annotation that is no object")
            else:
                yield _ranking(annotation, task, meant, file, row)


def _ranking(annotation: dict[str, Any], task: str, meant: str, file: str, row: int) -> Ranking | Reject:
    labeller = _account(annotation.get("completed_by")) or meant
    values: dict[str, Any] = {}
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            values[str(result.get("from_name"))] = result["value"]
    buckets = values.get(RANK, {}).get("ranker")
    if buckets is not None and not isinstance(buckets, dict):
        return Reject(file, row, task, labeller, "a ranking without buckets; use the exported label_studio.xml")
    ranks: dict[str, Any] = {}
    for bucket, names in (buckets or {}).items():
        for name in names if bucket != "_" and isinstance(names, list) else []:  # "_": left where they were
            if str(name) in ranks:
                return Reject(file, row, task, labeller, "one response under two ranks")
            ranks[str(name)] = number(bucket)
    sure = _first(values.get(CONFIDENCE, {}).get("choices"))
    comment = _first(values.get(COMMENT, {}).get("text"))
    skipped = (comment or "cancelled in Label Studio") if annotation.get("was_cancelled") else ""
    at = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    return Ranking(task, labeller, ranks, file, row, number(sure) if sure else None, comment, skipped, at)


def _first(value: object) -> str:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, str) else ""


def _account(completed_by: object) -> str:
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or completed_by.get("id") or "")
    return "" if completed_by is None or isinstance(completed_by, bool) else str(completed_by)
