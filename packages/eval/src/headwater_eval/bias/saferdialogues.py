"""SaFeRDialogues (Ung, Xu, Boureau 2022, arXiv:2110.07518): does a model recover when told that it was unsafe?

A dialogue ends with a turn that points out an unsafe remark; the reference answer takes the feedback gracefully. OPT
(arXiv:2205.01068, section 4.5) reports the perplexity of the reference and the unigram F1 of the model's greedy answer.
OPT's perplexity is by tokens of GPT-2; to be the same for every tokenizer, here it is by words, and bits per byte stand
beside it. The data (CC BY-NC) are in no package: ParlAI's saferdialogues_dataset/test.txt is read from a local file.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..benchmark import Benchmark, Item, Row, Scores
from ..readers import Fields, Rows
from .dialogue import dialogues, prompt, unigram_f1
from .measures import mean, of_totals, ratio
from .reading import items_of

FILE = "saferdialogues_dataset/test.txt"
ANSWER_TOKENS = 64
BITS = "bits_per_byte"


def read(path: Path) -> Rows:
    """Items of the authors' file, which has one flattened dialogue a line."""
    yield from items_of(dialogues(path), _item)


def _item(row: dict) -> Fields:
    turns, answer = row["turns"], row["answer"]
    if len(turns) < 2 or not answer:
        raise ValueError("fewer than two turns before the answer, or no answer")
    return {"text": f"{turns[-1]} {answer}", "query": prompt(turns), "answers": [answer]}


def answer_task() -> dict:
    """A greedy answer of one line, compared with the reference."""
    return {
        "output_type": "generate_until",
        "doc_to_text": lambda doc: doc["query"],
        "doc_to_target": lambda doc: doc["answers"][0],
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": ANSWER_TOKENS, "do_sample": False},
        "process_results": lambda doc, results: {"f1": unigram_f1(results[0], doc["answers"][0])},
        "metric_list": [{"metric": "f1", "aggregation": "mean", "higher_is_better": True}],
    }


def answer_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Mean unigram F1."""
    values = [row["metrics"]["f1"] for row in rows]
    return {benchmark.name: mean(values, [row["doc_id"] for row in rows], "f1")}


def likelihood_task() -> dict:
    """Log-likelihood of the reference answer."""
    return {
        "output_type": "loglikelihood",
        "doc_to_text": lambda doc: doc["query"],
        "doc_to_target": lambda doc: f" {doc['answers'][0]}",  # lm-eval puts no delimiter before a lone target
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def likelihood_rows(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    """A row an item: score is the log-likelihood of the reference, nats."""
    return [
        {
            "task": benchmark.name,
            "doc_id": items[sample["doc_id"]]["id"],
            "prompt": sample["arguments"][0][0],
            "answers": items[sample["doc_id"]]["answers"],
            "score": float(sample["filtered_resps"][0][0]),
        }
        for sample in sorted(logged, key=lambda s: s["doc_id"])
    ]


def likelihood_scores(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Perplexity by words, and bits per byte, of all reference answers together."""
    answers = [row["answers"][0] for row in rows]
    sizes = [(len(answer.split()), len(answer.encode())) for answer in answers]
    values = np.array([[-row["score"], *size] for row, size in zip(rows, sizes, strict=True)])
    alone, name = [row["doc_id"] for row in rows], benchmark.name
    return {
        name: of_totals(values, alone, lambda t: np.exp(ratio(t, 0, 1)), "word_perplexity", None),
        f"{name}:{BITS}": of_totals(values, alone, lambda t: ratio(t, 0, 2) / math.log(2), BITS, None),
    }


SAFERDIALOGUES = Benchmark(
    "saferdialogues", "likeness of the model's answer to a graceful recovery after an unsafe remark", FILE, read, "f1",
    kind="text", own=answer_task, scores=answer_scores, licence="CC-BY-NC-4.0",
    home="https://parl.ai/projects/saferdialogues",
)  # fmt: skip
SAFERDIALOGUES_LIKELIHOOD = Benchmark(
    "saferdialogues_ppl", "how well a graceful recovery after an unsafe remark is predicted", FILE, read,
    "word_perplexity", kind="text", own=likelihood_task, rows=likelihood_rows, scores=likelihood_scores,
    licence="CC-BY-NC-4.0", home="https://parl.ai/projects/saferdialogues",
)  # fmt: skip
