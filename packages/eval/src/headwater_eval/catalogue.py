"""The benchmarks: what each measures, the file its items come from, and lm-eval's own definition of it.

`stock` names the YAML file inside lm-eval whose prompt and metric are used as they are; `to_stock` turns an
item into the row that this YAML expects. A task without `stock` is defined by `tasks.own_task`.
"""

from __future__ import annotations

from . import bias, readers
from .benchmark import Benchmark


def _boolq(item: dict) -> dict:
    return {"passage": item["passage"], "question": item["query"], "label": item["label"]}


def _piqa(item: dict) -> dict:
    first, second = item["choices"]
    return {"goal": item["query"], "sol1": first, "sol2": second, "label": item["label"]}


def _openbookqa(item: dict) -> dict:
    letters = _letters(item)
    return {"question_stem": item["query"], "choices": {"text": item["choices"], "label": letters},
            "answerKey": letters[item["label"]]}  # fmt: skip


def _commonsense_qa(item: dict) -> dict:
    letters = _letters(item)
    return {"question": item["query"], "choices": {"text": item["choices"], "label": letters},
            "answerKey": letters[item["label"]]}  # fmt: skip


def _social_iqa(item: dict) -> dict:
    a, b, c = item["choices"]
    return {"context": item["passage"], "question": item["query"], "answerA": a, "answerB": b, "answerC": c,
            "label": str(item["label"] + 1)}  # fmt: skip


def _letters(item: dict) -> list[str]:
    return list("ABCDEFGH"[: len(item["choices"])])


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark("boolq", "yes-no questions about a passage", "BoolQ/dev.jsonl", readers.jsonl(readers.yes_no),
                  "acc", stock="super_glue/boolq/default.yaml", to_stock=_boolq),
        Benchmark("piqa", "physical common sense", "PIQA/validation.jsonl",
                  readers.jsonl(readers.question_with_options), "acc_norm", stock="piqa/piqa.yaml", to_stock=_piqa),
        Benchmark("openbookqa", "elementary science facts, applied", "OpenBookQA/test.jsonl",
                  readers.jsonl(readers.question_with_options), "acc_norm",
                  stock="openbookqa/openbookqa.yaml", to_stock=_openbookqa),
        Benchmark("commonsense_qa", "relations between everyday concepts", "CommonsenseQA/validation.jsonl",
                  readers.jsonl(readers.question_with_options), "acc",
                  stock="commonsense_qa/default.yaml", to_stock=_commonsense_qa),
        Benchmark("social_iqa", "motives and reactions of people", "SIQA/test.jsonl",
                  readers.jsonl(readers.situation_with_options), "acc",
                  stock="siqa/siqa.yaml", to_stock=_social_iqa),
        Benchmark("docstring_cloze", "which second half continues a docstring of the standard library",
                  "docstrings.jsonl", readers.docstring_cloze, "acc_norm"),
        *bias.BENCHMARKS,
    )
}  # fmt: skip
