"""The tasks as a CSV table for a spreadsheet, a response a row, and the table as it comes back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from .._contracts.errors import UserError
from .rankings import Ranking, Reject, number
from .tasks import Task, visible

COLUMNS = ("task", "name", "prompt", "response", "rank", "confidence", "comment", "skip", "labeller")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(tasks: Sequence[Task], labeller: str, seed: int) -> str:
    """The table, with empty columns to fill in: a rank for each row, the others once a task.

    A text that a spreadsheet would run as a formula gets an apostrophe before it: a model may write anything.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for task in tasks:
        for name, response in task.shown_to(labeller, seed):
            texts = {"prompt": task.prompt_text(), "response": visible(response)}
            shown = {key: f"'{text}" if text.startswith(FORMULA) else text for key, text in texts.items()}
            writer.writerow({"task": task.task, "name": name, **shown, "labeller": labeller})
    return out.getvalue()


def read(text: str, file: str) -> Iterator[Ranking | Reject]:
    """The rankings of a table; a task without a rank, and without a word in `skip`, is not ranked yet.

    Raises:
        UserError: not such a table.
    """
    separator = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
    if not {"task", "name", "rank"} <= set(reader.fieldnames):
        raise UserError(f"{file}: no table with columns task, name and rank; name what a labeller saved")
    rows: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = {}
    try:
        for place, row in enumerate(reader, 1):
            if None in row:
                yield Reject(file, place, "", "", "more cells than the header has")
                continue
            values = {name: (value or "").strip() for name, value in row.items()}
            labeller = values.get("labeller") or Path(file).stem
            rows.setdefault((values["task"], labeller), []).append((place, values))
    except csv.Error as e:
        raise UserError(f"{file}: not readable as CSV ({e}); save it again") from None
    for (task, labeller), of_task in rows.items():
        places = [place for place, _ in of_task]
        skipped, comment, sure = (
            next((values[name] for _, values in of_task if values.get(name)), "")
            for name in ("skip", "comment", "confidence")
        )
        ranks = {values["name"]: number(values["rank"]) for _, values in of_task if values["rank"]}
        if ranks or skipped:
            confidence = number(sure) if sure else None
            yield Ranking(task, labeller, ranks, file, places[0], confidence, comment, skipped)
        elif comment or sure:
            yield Reject(file, places[0], task, labeller, "a comment or confidence, and no rank")
