"""SNLI, which lm-eval lacks: does one caption follow from another, contradict it, or neither?"""

from __future__ import annotations

from typing import Any

from .readers import digest

LABELS = ("entailment", "neutral", "contradiction")
CHOICES = ["True", "Neither", "False"]
"""The words that lm-eval's anli and cb give these labels."""


def parse_snli(row: dict) -> list[dict[str, Any]]:
    """A pair of the hub (`label` 0 to 2) or of the authors' JSON Lines (`gold_label`); all five may disagree."""
    if "gold_label" in row:
        premise, hypothesis, label = row["sentence1"], row["sentence2"], row["gold_label"]
        if label not in LABELS:
            raise ValueError("the five people did not agree on a label")
        index = LABELS.index(label)
    else:
        premise, hypothesis, index = row["premise"], row["hypothesis"], row["label"]
        if index not in (0, 1, 2):
            raise ValueError("the five people did not agree on a label")
    return [{"text": f"{premise} {hypothesis}", "query": hypothesis, "passage": premise, "choices": CHOICES,
             "label": index, "cluster": digest(premise)}]  # fmt: skip


def snli_config() -> dict[str, Any]:
    """lm-eval's prompt of anli, whose pairs have the same form."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: f"{doc['passage']}\nQuestion: {doc['query']} True, False, or Neither?\nAnswer:",
        "doc_to_choice": CHOICES,
        "doc_to_target": lambda doc: doc["label"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


DEFINITIONS: dict[str, dict[str, Any]] = {"snli": {"own": snli_config, "parse": parse_snli}}
