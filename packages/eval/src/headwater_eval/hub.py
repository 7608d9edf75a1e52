"""Items from files in the format of the hub's data sets: JSON Lines, JSON or Parquet, one row an item.

A stock task's own prompt functions say what its rows ask, which choices there are and which is right, so none of
lm-eval's tasks needs a reader of its own. The row goes along as it is (`row`): the model is asked about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import UndefinedError

from ._contracts.errors import UserError
from .benchmark import Benchmark, Item
from .readers import Reject, Rows, check, digest, items_of, json_file, parse_row, shown

ENDINGS = (".jsonl", ".json", ".parquet")
LEFT_OUT = "lm-eval's definition leaves it out"
Raw = tuple[int, Any]
"""1-based row and its bytes (JSON Lines) or its value."""


def read_items(
    benchmark: Benchmark, paths: list[Path], name: str, most: int | None = None
) -> tuple[list[Item], list[Reject]]:
    """All well-formed items of files in the hub's format, in order, and the other rows with their reason.

    Args:
        paths: shards of one split, in order.
        name: what ids begin with.
        most: rows to read; None: all.
    """
    return read_rows(benchmark, items_of(islice(_raw_rows(paths), most), _row), name)


def read_rows(benchmark: Benchmark, found_rows: Rows, name: str) -> tuple[list[Item], list[Reject]]:
    """All well-formed items of rows in the hub's format, in order, and the other rows with their reason.

    Args:
        found_rows: rows by number, and those that a reader has set aside.
        name: what ids begin with.
    """
    rows: list[tuple[int, dict]] = []
    rejects: list[Reject] = []
    for raw in found_rows:
        if isinstance(raw, Reject):
            rejects.append(raw)
        else:
            rows.append(raw)
    items = []
    for (number, row), found in zip(rows, _fields(benchmark, [row for _, row in rows]), strict=True):
        if isinstance(found, str):
            rejects.append(Reject(number, found, shown(row)))
            continue
        for part, fields in enumerate(found):
            suffix = f"-{part:02d}" if len(found) > 1 or benchmark.parse else ""
            items.append({"id": f"{name}-{number:05d}{suffix}", "task": benchmark.name, **fields})
    return items, sorted(rejects, key=lambda reject: reject.row)


def _row(raw: Any) -> dict:
    row = json.loads(raw.decode("utf-8")) if isinstance(raw, bytes) else raw
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def _raw_rows(paths: list[Path]) -> Iterator[Raw]:
    number = 0
    for path in paths:
        for raw in _file_rows(path):
            number += 1
            yield number, raw


def _file_rows(path: Path) -> Iterator[Any]:
    try:
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(1024):
                yield from batch.to_pylist()
        elif path.suffix == ".jsonl":
            with open(path, "rb") as f:
                yield from (line for line in f if line.strip())
        else:
            whole = json_file(path)
            yield from whole["data"] if isinstance(whole, dict) and isinstance(whole.get("data"), list) else whole
    except (pa.ArrowInvalid, ValueError, TypeError) as e:
        raise UserError(f"{path}: not a readable {path.suffix[1:]} file ({str(e).splitlines()[0]})") from None


def _fields(benchmark: Benchmark, rows: list[dict]) -> list[list[dict] | str]:
    """For each row the fields of its items, or the reason why it has none."""
    if (parse := benchmark.parse) is None:
        return [found if isinstance(found, str) else [found] for found in stock_fields(benchmark, rows)]
    return [parse_row(lambda row: [check(fields) for fields in parse(row)], row) for row in rows]


def stock_fields(benchmark: Benchmark, rows: list[dict]) -> list[dict | str]:
    """For each row the fields of its item, by lm-eval's definition, or the reason why it has none."""
    found: list[dict | str] = []
    usable = []
    for row in rows:
        lacking = [name for name in benchmark.words if _words(row, name) is None]
        found.append(f"no field {lacking[0].split('|')[-1]}" if lacking else {})
        usable += [] if lacking else [row]
    derived = iter(_derive(benchmark, usable))
    return [entry if isinstance(entry, str) else next(derived) for entry in found]


def _words(row: dict, columns: str) -> Any:
    """The value of the first of the columns A|B that the row has something in, None where it lacks them.

    The last of several may be empty: BIG-bench asks some choices without a question.
    """
    *better, last = columns.split("|")
    found = next((row[name] for name in better if row.get(name)), row.get(last))
    return None if found == "" and not better else found


def _derive(benchmark: Benchmark, rows: list[dict]) -> list[dict | str]:
    """All rows at once; where lm-eval's functions fail on some, by halves, so that only those are lost."""
    from .tasks import stock_rows_task  # imports lm-eval, which takes seconds

    if not rows:
        return []
    try:
        task = stock_rows_task(benchmark, rows)
        docs = list(task.eval_docs)
        if len(docs) != len(rows):
            raise ValueError(LEFT_OUT)
    except Exception as e:  # whatever a task's own functions raise on a row that they do not expect
        if len(rows) == 1:
            return [LEFT_OUT if isinstance(e, IndexError) and "size 0" in str(e) else _reason(e)]
        if isinstance(e, UndefinedError) and len({frozenset(row) for row in rows}) == 1:
            return [_reason(e)] * len(rows)  # a column that no row has: the file is another data set's
        half = len(rows) // 2
        return _derive(benchmark, rows[:half]) + _derive(benchmark, rows[half:])
    return [_item_or_reason(benchmark, task, doc, row) for doc, row in zip(docs, rows, strict=True)]


def _item_or_reason(benchmark: Benchmark, task: Any, doc: dict, row: dict) -> dict | str:
    try:
        return check(_stock_item(benchmark, task, doc, row))
    except Exception as e:  # lm-eval's templates evaluate text: a quotation mark in a row may be a SyntaxError
        return _reason(e)


def _reason(e: Exception) -> str:
    if isinstance(e, KeyError):
        return f"no field {e.args[0]}"
    return (str(e) if isinstance(e, ValueError) else f"{type(e).__name__}: {e}").split("\n")[0][:300]


def _stock_item(benchmark: Benchmark, task: Any, doc: dict, row: dict) -> dict:
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    fields: dict[str, Any] = {"query": text if isinstance(text, str) else ""}
    if task.config.doc_to_choice is not None:
        choices = list(task.doc_to_choice(doc))
        if isinstance(target, list):  # every choice is right (WebQuestions' accepted answers)
            fields["answers"] = [choices[i] for i in target]
        else:
            right = text if isinstance(text, int) else target
            label = choices.index(right) if isinstance(right, str) else int(right)
            if not 0 <= label < len(choices):
                raise ValueError(f"label {label} of {len(choices)} choices")
            fields |= {"choices": choices, "label": label}
        answer = fields["answers"][0] if "answers" in fields else choices[fields["label"]]
    else:
        answers = [str(a).strip() for a in (target if isinstance(target, list) else [target])]
        answers = [a for a in answers if a] or [str(a) for a in doc.get("correct_answers", [])]
        if not answers:
            raise ValueError("no answer")
        fields["answers"], answer = answers, answers[0]
    words = [str(_words(row, name)) for name in benchmark.words]
    fields["text"] = " ".join(part.strip() for part in (*words, answer) if part.strip())
    if benchmark.cluster:
        fields["cluster"] = digest(row[benchmark.cluster])
    if benchmark.category:
        category = row.get(benchmark.category)  # a colon divides the parts of a score's name
        fields["category"] = category.replace(": ", ", ") if isinstance(category, str) else category
    return {**fields, "row": row}
