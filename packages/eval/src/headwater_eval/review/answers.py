"""What reviewers send back: Label Studio's JSON export, the page's JSON or CSV, the table as a spreadsheet saved it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._contracts.errors import UserError
from .sheet import CLASS, COMMENT, CORRECTED


@dataclass(frozen=True)
class Answer:
    """One judgement."""

    item: str
    reviewer: str
    label: str
    """The failure class."""
    corrected: str
    comment: str
    file: str
    row: int
    """Row of a table (the header not counted) or task of a JSON file, from 1."""


@dataclass(frozen=True)
class Reject:
    """Something that is no judgement, and why."""

    file: str
    row: int
    item: str
    reviewer: str
    reason: str
    raw: str
    """What stood in its place, cut at 2,000 characters."""

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


Found = Iterator[Answer | Reject]


def read(path: Path) -> list[Answer | Reject]:
    """The judgements of one file; a row without a class is not judged yet and is no reject.

    Raises:
        UserError: neither JSON nor a table of ours.
    """
    return parse(path.read_bytes(), path.name)


def parse(content: bytes, file: str) -> list[Answer | Reject]:
    """`read` of bytes at hand; `file` is what they are called."""
    try:
        text = content.decode("utf-8-sig")  # spreadsheets write a byte-order mark
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; save it again as CSV UTF-8 or JSON") from None
    return list(label_studio(text, file) if text.lstrip()[:1] in ("[", "{") else table(text, file))


def accepted(found: list[Answer | Reject], items: set[str], classes: list[str]) -> tuple[list[Answer], list[Reject]]:
    """Judgements of known items with known classes, one an item and reviewer; the others with a reason.

    Of two judgements of one item by one reviewer the later in the given order counts.

    Args:
        items: of the sample.
        classes: known ones; case and blanks around do not matter.
    """
    known = {name.casefold(): name for name in classes}
    kept: dict[tuple[str, str], Answer] = {}
    rejects = [entry for entry in found if isinstance(entry, Reject)]
    for answer in found:
        if isinstance(answer, Reject):
            continue
        label = known.get(" ".join(answer.label.split()).casefold())
        if answer.item not in items:
            rejects.append(_refused(answer, "no item of this sample; import it with the export that it came from"))
        elif label is None:
            told = f"no class {answer.label}; add it to review-import.classes, or name one of the list"
            rejects.append(_refused(answer, told))
        else:
            earlier = kept.get((answer.item, answer.reviewer))
            now = Answer(**{**asdict(answer), "label": label})
            if earlier is not None:
                told = f"judged again by the same reviewer in row {now.row} of {now.file}, which counts"
                rejects.append(_refused(earlier, told))
            kept[answer.item, answer.reviewer] = now
    order = sorted(kept.values(), key=lambda a: (a.item, a.reviewer))
    return order, sorted(rejects, key=lambda r: (r.file, r.row, r.item, r.reviewer, r.reason))


def table(text: str, file: str) -> Found:
    """A CSV table with the columns item and class at least; commas, semicolons or tabs between them."""
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    names = [(name or "").strip().lower() for name in reader.fieldnames or []]
    if "item" not in names or CLASS not in names:
        raise UserError(f"{file}: no table with columns item and class, and no JSON; name what a reviewer saved")
    reader.fieldnames = names
    try:
        for number, row in enumerate(reader, 1):
            values = {name: value.strip() for name, value in row.items() if isinstance(value, str)}
            item, reviewer, label = (values.get(name, "") for name in ("item", "reviewer", CLASS))
            if None in row:
                yield Reject(file, number, item, reviewer, "more cells than the header has", _shown(row))
            elif not item and any(values.values()):
                yield Reject(file, number, item, reviewer, "no item", _shown(row))
            elif label:
                who = reviewer or Path(file).stem
                yield Answer(item, who, label, values.get(CORRECTED, ""), values.get(COMMENT, ""), file, number)
            elif values.get(CORRECTED) or values.get(COMMENT):
                yield Reject(file, number, item, reviewer, "a correction or comment, and no class", _shown(row))
    except csv.Error as e:
        raise UserError(f"{file}: not readable as CSV ({e}); save it again") from None


def label_studio(text: str, file: str) -> Found:
    """Label Studio's JSON export: tasks, each with annotations, each with results by control.

    A skipped annotation (`was_cancelled`) is not judged yet. The reviewer is the annotation's `completed_by` (an
    account's number, or an object with its e-mail address), else the one that the task was made for.
    """
    try:
        tasks = json.loads(text)
    except ValueError as e:
        raise UserError(f"{file}: not readable as JSON ({e}); export it again") from None
    if isinstance(tasks, dict):
        tasks = [tasks]
    if not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
        raise UserError(f"{file}: no tasks with data in it; export from Label Studio as JSON, not as JSON-MIN or CSV")
    for number, task in enumerate(tasks, 1):
        item, meant = str(task["data"].get("item", "")), str(task["data"].get("reviewer", ""))
        for annotation in _listed(task.get("annotations")):
            if not isinstance(annotation, dict):
                yield Reject(file, number, item, meant, "an annotation that is no object", _shown(annotation))
            elif not annotation.get("was_cancelled"):
                yield from _judged(annotation, item, meant or Path(file).stem, file, number)


def _judged(annotation: dict[str, Any], item: str, meant: str, file: str, number: int) -> Found:
    who = _account(annotation.get("completed_by")) or meant
    said: dict[str, list[str]] = {CLASS: [], CORRECTED: [], COMMENT: []}
    for result in _listed(annotation.get("result")):
        name = result.get("from_name") if isinstance(result, dict) else None
        value = result.get("value") if isinstance(result, dict) else None
        if name in said and isinstance(value, dict):
            given = value.get("choices" if name == CLASS else "text")
            said[name] += [str(part) for part in (given if isinstance(given, list) else [given]) if part]
    if not item:
        yield Reject(file, number, item, who, "no item", _shown(annotation))
    elif len(said[CLASS]) > 1:
        yield Reject(file, number, item, who, "more than one class", _shown(annotation))
    elif said[CLASS]:
        corrected, comment = ("\n".join(said[name]).strip() for name in (CORRECTED, COMMENT))
        yield Answer(item, who, said[CLASS][0].strip(), corrected, comment, file, number)
    elif said[CORRECTED] or said[COMMENT]:
        yield Reject(file, number, item, who, "a correction or comment, and no class", _shown(annotation))


def _listed(value: object) -> list:
    return value if isinstance(value, list) else []


def _account(completed_by: object) -> str:
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or completed_by.get("id") or "")
    return "" if completed_by is None or isinstance(completed_by, bool) else str(completed_by)


def _refused(answer: Answer, reason: str) -> Reject:
    return Reject(answer.file, answer.row, answer.item, answer.reviewer, reason, _shown(asdict(answer)))


def _shown(raw: object) -> str:
    return json.dumps(raw, ensure_ascii=False, default=str)[:2000]
