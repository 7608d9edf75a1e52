"""Which option a model finds likeliest, and what it answers where there are none."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from ..chat_format import ChatFormat
from ..engine import GPT, forward, generation, tree
from .questions import Encoded, Format


def option_scores(model: GPT, questions: Sequence[Encoded], batch_tokens: int) -> list[list[float]]:
    """Log-likelihood in nats of each option after its question, summed over the option's tokens (FLAN, section 2.4).

    A question and its options are one tree: what they share is read once.
    """
    flat = [(question, option) for question in questions for option in question.options]
    sequences = [question.prompt + option for question, option in flat]
    sums = [0.0] * len(flat)
    for made, places_of in tree.trees(sequences, batch_tokens):
        places, labels, owner = [], [], []
        for index, places_of_one in places_of.items():
            start = len(flat[index][0].prompt)
            places += places_of_one[start - 1 : -1]
            labels += sequences[index][start:]
            owner += [index] * len(flat[index][1])
        nats, _ = forward.tree_scores(model, made, torch.tensor(places), torch.tensor(labels))
        for index, value in zip(owner, nats.tolist(), strict=True):
            sums[index] += value
    scores = iter(sums)
    return [[next(scores) for _ in question.options] for question in questions]


def answers(
    model: GPT, questions: Sequence[Encoded], chat: ChatFormat, form: Format, max_new_tokens: int, batch_size: int
) -> list[str]:
    """What the model writes after each question at temperature 0; in plain text the answer ends with the line."""
    order = sorted(range(len(questions)), key=lambda i: (len(questions[i].prompt), i))
    written = [""] * len(questions)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        made = generation.generate(
            model,
            [questions[i].prompt for i in part],
            max_new_tokens,
            temperature=0.0,
            stop_ids=chat.stops,
            stop=("\n",) if form == "text" else (),
            tokenizer=chat.tokenizer,
        )
        for i, one in zip(part, made, strict=True):
            written[i] = one.text if form == "text" else chat.text(one.tokens)
    return written


def matches(written: str, answer: str) -> bool:
    """Exact match but for case, punctuation, articles and spacing (SQuAD's rule, arXiv:1606.05250)."""
    return _normal(written) == _normal(answer)


def _normal(text: str) -> str:
    words = re.sub(r"[^\w\s]", "", text.casefold())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split())
