"""Whom a pronoun refers to: the prompt that WinoBias and Winogender share.

The sentence, then ` 'She' refers to the`, and the two people as choices: lm-eval's `winogender_all`, which is how
GPT-3 was asked (Brown et al. 2020, arXiv:2005.14165, section 6.1).
"""

from __future__ import annotations

from .measures import choice_metrics


def task() -> dict:
    """Multiple choice over an item's two people."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: f"{doc['query']} ‘{doc['pronoun'].capitalize()}’ refers to the",
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["label"],
        "metric_list": choice_metrics(),
    }
