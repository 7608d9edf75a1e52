"""Solved examples before a question: which ones, and never the question itself.

lm-eval leaves the tested document out only where shots and questions come from a split of the same name; here what
counts is what is asked, so a training file that repeats a test question, or the test file itself under another name,
gives nothing away. Items of our own definitions name their passage (`cluster`), and no other question about it is
shown: a later turn of a conversation holds the earlier answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from ._contracts.errors import UserError
from .documents import seeded_rank
from .engine import ConfigurableTask, ContextSampler, Dataset

SAMPLERS = ("fixed", "first_n", "per_item")
"""fixed: the same seeded choice before every question, so that a model computes it once. first_n: the first ones of the
pool, in its order (MMLU's five). per_item: a seeded choice of its own for each question, as lm-eval does."""

Doc = dict[str, Any]


class Shots(ContextSampler):
    """A pool of distinct questions and how examples are taken from it.

    Args:
        task: whose question and choices say when two documents ask the same.
        docs: the pool, as the task's prompt functions take them.
        how: one of SAMPLERS.
        within: a column; examples share the tested document's value of it. Empty: any will do.
    """

    def __init__(self, task: ConfigurableTask, docs: list[Doc], how: str, seed: int, within: str = ""):
        self.task, self.how, self.seed, self.within = task, how, seed, within
        pool: dict[str, Doc] = {}
        for doc in docs:
            pool.setdefault(asked(task, doc), doc)
        keys = sorted(pool, key=lambda key: seeded_rank(seed, key)) if how == "fixed" else list(pool)
        self.pool = {key: pool[key] for key in keys}
        self.groups = Counter(doc.get(within) for doc in pool.values()) if within else Counter()
        self.passages = Counter(doc.get("cluster") for doc in pool.values())
        super().__init__(list(self.pool.values()))

    def left(self, eval_doc: Doc) -> int:
        """How many documents of the pool may stand before the tested one."""
        if (passage := eval_doc.get("cluster")) is not None:
            return len(self.pool) - self.passages[passage]
        group = self.groups[eval_doc.get(self.within)] if self.within else len(self.pool)
        return group - (asked(self.task, eval_doc) in self.pool)

    def others(self, eval_doc: Doc) -> Iterator[Doc]:
        """The pool without what asks the same as the tested document, or is about the same passage."""
        tested, passage = asked(self.task, eval_doc), eval_doc.get("cluster")
        for key, doc in self.pool.items():
            if (
                key != tested
                and (passage is None or doc.get("cluster") != passage)
                and (not self.within or doc.get(self.within) == eval_doc.get(self.within))
            ):
                yield doc

    def sample(self, n: int, eval_doc: Doc | None = None, df: object = None, **_: object) -> list[Doc]:
        """n documents for the tested one, in the order in which they are shown."""
        assert eval_doc is not None, "shots are drawn for a document"
        others = self.others(eval_doc)
        if self.how == "per_item":
            return Random(seeded_rank(self.seed, asked(self.task, eval_doc))).sample(list(others), n)
        return list(islice(others, n))


def give_shots(
    task: ConfigurableTask, shots: int, rows: list[Doc], how: str = "fixed", seed: int = 1234, within: str = ""
) -> None:
    """Let the task show `shots` solved rows before each question; examples that its definition names come first.

    Raises:
        UserError: no such sampler, or fewer other rows than shots.
    """
    if how not in SAMPLERS:
        raise UserError(f"no sampler {how}; known are {', '.join(SAMPLERS)}")
    preset = task.fewshot_cfg.samples
    named = preset() if callable(preset) else preset
    if named and len(named) >= shots:
        docs, how, within = list(named), "first_n", ""
    else:
        process = task.fewshot_cfg.process_docs or task.config.process_docs
        dataset = table(rows)
        docs = list(process(dataset) if process else dataset)
    sampler = Shots(task, docs, how, seed, within)
    left = min(sampler.left(doc) for doc in task.eval_docs)
    if left < shots:
        raise UserError(
            f"{task.config.task}: {shots} shots asked for, but there are only {left} rows beside the tested one to "
            "draw them from; ask for fewer shots, or for items with a larger file of shots"
        )
    task.set_config("num_fewshot", shots)
    task.sampler = sampler
    task.fewshot_cfg.split = task.config.test_split  # so that lm-eval tells the sampler which document is tested


def table(rows: list[Doc]) -> Dataset:
    """Rows as a data set; a column that a row lacks is null."""
    names = sorted({name for row in rows for name in row})
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})


def asked(task: ConfigurableTask, doc: Doc) -> str:
    """What a document asks, whatever its id: the question and the choices, blanks and letter case aside.

    A task whose question is empty or the index of a choice (partial evaluation: WinoGrande) is known by its choices;
    one without choices by its target too.
    """
    text = task.doc_to_text(doc)
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
    parts = [text if isinstance(text, str) else "", *choices]
    if not choices and not parts[0].strip():
        parts.append(task.doc_to_target(doc))
    return json.dumps([" ".join(str(part).split()).lower() for part in parts])
