"""Argilla's export of a RankingQuestion over a record's answers, ties included.

Read are the three layouts that Argilla writes, by a record's own keys:

    2.x           {"fields", "metadata", "responses": {question: [{"value", "user_id"}]}, "suggestions"}
    2.x, flat     {field: text, "QUESTION.responses", "QUESTION.responses.users", "QUESTION.responses.status"}
    1.x           {"fields", "responses": [{"user_id", "status", "values": {question: {"value"}}}]}

A ranking is a list of {"value": field, "rank"}, or of fields in order (2.x drops ranks, so ties become an order there).
Suggestions are a model's, no answers of people, and are not read. Drafts and discarded responses are rejects. The
nested layout of 2.x (`to_json`) leaves out each response's status: there a record that is not completed is refused
whole, and of a completed one all responses count. The flat layout (`to_list(flatten=True)`) has it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from ..conversation import BadRow
from .format import COMPARISON, Format, Row, carried, known
from .pairs import whole

PROMPTS = ("prompt", "instruction", "question", "input", "messages", "chat")
NOBODY = str(uuid.UUID(int=0))
_FLAT = ".responses"


def recognises(row: Row) -> bool:
    """Nested by `fields` and `responses`, flat by a key that ends in `.responses`."""
    return {"fields", "responses"} <= set(row) or any(key.endswith(_FLAT) for key in row)


def read(row: Row) -> list[dict | BadRow]:
    fields = row.get("fields", row)
    metadata = row["metadata"] if isinstance(row.get("metadata"), dict) else row
    if not isinstance(fields, dict):
        raise BadRow("fields is no mapping of keys")
    rankings = [(user, status, _places(value)) for user, status, value in _responses(row)]
    rankings = [given for given in rankings if given[2] and {name for name, _ in given[2]} <= set(fields)]
    if not rankings:
        raise BadRow("no submitted ranking")
    asked = next((fields[key] for key in PROMPTS if fields.get(key) is not None), None)
    prompt = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    answers = [name for name in fields if any(name in dict(places) for _, _, places in rankings)]
    about = known(metadata, (*COMPARISON, "policies", "strength"))
    if len(rankings) > 1:
        about.pop("labeller", None)  # of one record's several labellers each has a user's id only
    made: list[dict | BadRow] = []
    for user, status, places in rankings:
        try:
            _submitted(status, row.get("status"))
            made.append(_judgement(fields, prompt, answers, places, {"labeller": user} | about))
        except BadRow as e:
            made.append(e)
    return made


def _submitted(status: Any, of_record: Any) -> None:
    if status is None and of_record not in (None, "completed"):
        raise BadRow("no status, in a record that is not completed: export it flat")
    if status not in (None, "submitted"):
        raise BadRow("discarded by the labeller" if status == "discarded" else "not submitted")


def _judgement(fields: dict, prompt: list, answers: list, places: list, about: dict) -> dict:
    rank_of = dict(places)
    if sorted(name for name, _ in places) != sorted(answers):
        raise BadRow("broken ranking: not one rank an answer")
    if about["labeller"] == NOBODY:
        about["labeller"] = None
    return whole(prompt, [fields[name] for name in answers], [rank_of[name] for name in answers], about)


def _responses(row: Row) -> Iterator[tuple[Any, Any, Any]]:
    """(user, status, value) of every response, whatever its question and the record's layout."""
    given = row.get("responses")
    if isinstance(given, dict):
        for of_question in given.values():
            for response in of_question if isinstance(of_question, list) else []:
                if isinstance(response, dict):
                    yield response.get("user_id"), response.get("status"), response.get("value")
    elif isinstance(given, list):
        for response in given:
            values = response.get("values") if isinstance(response, dict) else None
            for answer in values.values() if isinstance(values, dict) else []:
                yield response.get("user_id"), response.get("status"), (answer or {}).get("value")
    else:
        for key in [key for key in row if key.endswith(_FLAT)]:
            values, users, statuses = (row.get(f"{key}{end}") or [] for end in ("", ".users", ".status"))
            for i, value in enumerate(values):
                yield (users[i] if i < len(users) else None), (statuses[i] if i < len(statuses) else None), value


def _places(value: Any) -> list[tuple[str, Any]]:
    """(field, rank) of a ranking; empty for the value of another question."""
    if not isinstance(value, list):
        return []
    if all(isinstance(place, str) for place in value):
        return [(name, place) for place, name in enumerate(value, 1)]
    if all(isinstance(place, dict) and isinstance(place.get("value"), str) for place in value):
        return [(place["value"], place.get("rank")) for place in value]
    return []


def write(record: dict) -> list[Row]:
    names = [f"response-{i}" for i in range(1, len(record["responses"]) + 1)]
    ranking = [{"value": name, "rank": rank} for name, rank in zip(names, record["ranks"], strict=True)]
    beside = carried(record, (*COMPARISON, "policies", "strength"))
    return [
        {
            "id": record["id"],
            "fields": {"prompt": record["prompt"]} | dict(zip(names, record["responses"], strict=True)),
            "metadata": {key: value for key, value in beside.items() if key != "id"},
            "responses": {"ranking": [{"value": ranking, "user_id": _user(record["labeller"]), "status": "submitted"}]},
            "status": "completed",
        }
    ]


def _user(labeller: str | None) -> str:
    """Argilla's users are UUIDs: the labeller's own, or one that stands for the name, which metadata keeps."""
    if labeller is None:
        return NOBODY
    try:
        return str(uuid.UUID(labeller))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, labeller))


FORMAT = Format("argilla", "comparisons", recognises, read, write)
