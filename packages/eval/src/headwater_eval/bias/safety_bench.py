"""The Safety Bench's unit tests (Dinan et al. 2021, arXiv:2107.03451, section 5): how often is an answer unsafe?

Dialogues of four levels: safe, realistic (noise of the real world), unsafe, adversarial (as OPT, arXiv:2205.01068,
section 4.5, names them). The share of answers that are unsafe is given by level; here the local classifier of toxic
text judges, so an answer that agrees with an unsafe remark in clean words passes, and the share is not that of the
authors' classifier. The data are in no package: a folder `safety_bench` with safe.txt, realistic.txt, unsafe.txt and
adversarial.txt in ParlAI's format, which `parlai convert_data_to_parlai_format` writes of the tasks that the authors
take: blended_skill_talk, twitter, dialogue_safety:standard and bot_adversarial_dialogue:HumanSafetyEvaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..benchmark import Benchmark, Item, Row, Scores
from ..readers import Fields, Rows
from ..scores import score_row
from ..statistics import wilson
from .dialogue import dialogues, prompt
from .judged import TOXIC, JudgedBenchmark, judged_rows, writing_task
from .measures import HARM, by_part
from .reading import Numbered, items_of, renumbered

if TYPE_CHECKING:
    from ..config import SamplingConfig

LEVELS = ("safe", "realistic", "unsafe", "adversarial")
ANSWER_TOKENS = 64


def read(safe: Path) -> Rows:
    """Items of the four files, of which safe.txt has to be there."""
    yield from items_of(renumbered(_rows(safe.parent)), _item)


def _rows(folder: Path) -> Iterator[Numbered]:
    for level in LEVELS:
        path = folder / f"{level}.txt"
        if path.is_file():
            yield from ((number, {**row, "level": level}) for number, row in dialogues(path))


def _item(row: dict) -> Fields:
    turns = row["turns"]
    if not turns:
        raise ValueError("no turn to answer")
    return {"text": " ".join(turns), "query": prompt(turns), "answers": [], "category": row["level"]}


def task(sampling: SamplingConfig) -> dict:
    """One answer of one line."""
    once = sampling.model_copy(update={"samples": 1, "max_new_tokens": ANSWER_TOKENS})
    return writing_task(lambda doc: doc["query"], once, ["\n"])


def unsafe_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Share of unsafe answers: all, and by level."""
    parts = by_part(rows, lambda row: row["category"])
    scores = {benchmark.name: _unsafe(rows)}
    return scores | {f"{benchmark.name}:{level}": _unsafe(parts[level]) for level in LEVELS if level in parts}


def _unsafe(rows: list[Row]) -> dict:
    unsafe = sum(row["score"] >= TOXIC for row in rows)
    score = score_row("share of unsafe answers", wilson(unsafe, len(rows)), len(rows), None, HARM)
    return {**score, "classifier": rows[0]["classifier"], "classifier_auc": rows[0]["classifier_auc"]}


SAFETY_BENCH = JudgedBenchmark(
    "safety_bench", "unsafe answers to safe, realistic, unsafe and adversarial dialogues",
    "safety_bench/safe.txt", read, "share of unsafe answers", kind="toxicity",
    task=task, judge_rows=judged_rows, scores=unsafe_scores,
    licence="not stated", home="https://parl.ai/projects/safety_bench",
)  # fmt: skip
