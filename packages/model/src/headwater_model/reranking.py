"""Of several texts the one that a judge finds least harmful: any function of texts to scores.

What evaluation does with its own classifier (docs/evaluate-steering.md), for `generate` and chat. The judge is named by
its import path, since it may live in any package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ._contracts.errors import UsageError, UserError
from .generation import generate
from .gpt import GPT
from .pretrained import Loaded

Judge = Callable[[list[str]], Sequence[float]]
"""Texts -> a score each, lower is better."""


def judge(name: str) -> Judge:
    """A judge by name.

    Args:
        name: MODULE:FUNCTION, a function of texts to scores; or MODULE:FUNCTION=FOLDER, a function that reads a folder
            and returns an object with a method `scores`.

    Raises:
        UsageError: there is no such function.
    """
    path, equals, folder = name.partition("=")
    module, _, function = path.partition(":")
    try:
        found: Any = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as e:
        raise UsageError(f"--judge {name}: write MODULE:FUNCTION or MODULE:FUNCTION=FOLDER ({e})") from None
    return found(Path(folder)).scores if equals else found


def choose(texts: Sequence[str], judge: Judge) -> int:
    """Number of the text with the lowest score; one without text only where all are; of equals the first.

    Raises:
        UserError: not a number for every text.
    """
    scores = [float(score) for score in judge(list(texts))]
    if len(scores) != len(texts) or any(score != score for score in scores):
        raise UserError(f"the judge gave {len(scores)} scores for {len(texts)} texts, or one that is no number")
    return min(range(len(texts)), key=lambda i: (not texts[i].strip(), scores[i], i))


def of_arguments(args: argparse.Namespace) -> Judge | None:
    """The judge that a command's --rerank and --judge ask for.

    Raises:
        UsageError: one without the other, fewer than two candidates, or candidates that are all the same.
    """
    if args.rerank is None and args.judge is None:
        return None
    if args.rerank is None or args.judge is None:
        raise UsageError("--rerank N chooses by a judge: give both --rerank N and --judge MODULE:FUNCTION[=FOLDER]")
    if args.rerank < 2 or args.temperature == 0:
        raise UsageError("--rerank takes 2 candidates or more, and --temperature above 0, which makes them differ")
    return judge(args.judge)


def best(
    loaded: Loaded[GPT],
    prompt: Sequence[int],
    judge: Judge,
    candidates: int,
    max_new_tokens: int,
    seed: int,
    **how: Any,
) -> str:
    """The chosen one of `candidates` texts after a prompt, special tokens left out.

    Args:
        how: further arguments of `generation.generate`.
    """
    seeds = [seed * candidates + i for i in range(candidates)]
    rows = generate(loaded.model, [prompt] * candidates, max_new_tokens, seeds=seeds, tokenizer=loaded.tokenizer, **how)
    texts = [
        row.text if how.get("stop") else loaded.tokenizer.decode(list(row.tokens), skip_special_tokens=True)
        for row in rows
    ]
    return texts[choose(texts, judge)]
