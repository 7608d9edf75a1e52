"""Argilla 2: settings with a ranking question and the records, and its JSON export as it comes back.

    settings = rg.Settings.from_json("argilla_settings.json")
    dataset.records.from_json("argilla.json")     # and when ranked:
    dataset.records(rg.Query(filter=rg.Filter(("response.status", "==", "submitted")))).to_json("ann.json")

A ranking question has the same values for every record: where a record has fewer responses than the longest, what is
said of the missing ones is not read. The export does not say which responses were discarded, hence
the filter. Where a response has a `status`, it is heeded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .rankings import Ranking, Reject, number
from .tasks import SURE, Task, visible

RANK, CONFIDENCE, COMMENT = "rank", "confidence", "comment"


def settings(most: int) -> str:
    """Settings of a dataset for tasks of at most `most` responses, as `argilla.Settings.from_json` reads them."""

    def field(name: str, title: str, required: bool) -> dict:
        return {"name": name, "title": title, "required": required, "settings": {"type": "text", "use_markdown": False}}

    def question(name: str, title: str, required: bool, **own: object) -> dict:
        return {"name": name, "title": title, "required": required, "settings": own}

    names = [f"response-{place}" for place in range(1, most + 1)]
    options = [{"value": name, "text": name} for name in names]
    sure = [{"value": value, "text": f"{told} ({value})"} for value, told in SURE.items()]
    metadata = ("task", "labeller", "names")
    whole = {
        "guidelines": "The best response first; equally good ones share a rank. Discard a record to skip it.",
        "allow_extra_metadata": False,
        "fields": [field("prompt", "What was asked", True), *(field(n, n, at < 2) for at, n in enumerate(names))],
        "questions": [
            question(RANK, "Best first", True, type="ranking", options=options),
            question(CONFIDENCE, "How sure?", False, type="label_selection", options=sure),
            question(COMMENT, "Comment", False, type="text", use_markdown=False),
        ],
        "metadata": [
            {"name": n, "title": n, "settings": {"type": "terms"}, "visible_for_annotators": False} for n in metadata
        ],
        "vectors": [],
    }
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def write(tasks: Sequence[Task], labeller: str, seed: int) -> str:
    """Records, as `dataset.records.from_json` reads them."""
    made = []
    for task in tasks:
        shown = task.shown_to(labeller, seed)
        fields = {f"response-{place}": visible(text) for place, (_, text) in enumerate(shown, 1)}
        about = {"task": task.task, "labeller": labeller, "names": [name for name, _ in shown]}
        record = {
            "id": f"{task.task}-{labeller}",
            "fields": {"prompt": task.prompt_text(), **fields},
            "metadata": about,
        }
        made.append({**record, "suggestions": {}, "responses": {}, "vectors": {}})
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def read(exported: list[Any], file: str) -> Iterator[Ranking | Reject]:
    """The rankings of `dataset.records.to_json`. Suggestions are not answers.

    The labeller is a response's `user_id`, else the one that the record was made for.
    """
    for row, record in enumerate(exported, 1):
        about = record.get("metadata") if isinstance(record, dict) else None
        if not isinstance(about, dict) or not isinstance(about.get("names"), list):
            yield Reject(file, row, "", "", "no record of a sheet: its metadata has no names")
            continue
        task, meant = str(about.get("task") or ""), str(about.get("labeller") or "")
        responses = record.get("responses")
        said = {name: _by_user(responses, name) for name in (RANK, CONFIDENCE, COMMENT)}
        for user, (ranked, status) in said[RANK].items():
            if status == "draft":
                continue
            names = {f"response-{place}": str(name) for place, name in enumerate(about["names"], 1)}
            ranks: dict[str, Any] = {}
            for part in ranked if isinstance(ranked, list) else []:
                if isinstance(part, dict) and str(part.get("value")) in names:
                    ranks[names[str(part["value"])]] = part.get("rank")
            sure, comment = (said[name].get(user, (None, ""))[0] for name in (CONFIDENCE, COMMENT))
            skipped = "discarded in Argilla" if status == "discarded" else ""
            comment = comment if isinstance(comment, str) else ""
            yield Ranking(task, user or meant, ranks, file, row, number(sure), comment, skipped)


def _by_user(responses: object, question: str) -> dict[str, tuple[Any, str]]:
    """User ("" where none is named) -> (value, status)."""
    given = responses.get(question) if isinstance(responses, dict) else None
    of = [r for r in given if isinstance(r, dict)] if isinstance(given, list) else []
    users = ["" if r.get("user_id") in (None, "None") else str(r["user_id"]) for r in of]
    return {user: (r.get("value"), str(r.get("status") or "")) for user, r in zip(users, of, strict=True)}
