"""Steering what a model writes, by what a user names: a blocklist, experts and anti-experts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from . import blocklist, experts
from ._contracts.errors import UsageError
from .generation import Guide
from .gpt import GPT
from .pretrained import Loaded


def guides(
    loaded: Loaded[GPT],
    phrases: Sequence[str] = (),
    expert: Path | None = None,
    anti: Path | None = None,
    alpha: float = experts.ALPHA,
    top_p: float = experts.BASE_TOP_P,
    dtype: torch.dtype = torch.float32,
) -> list[Guide]:
    """The guides of a model, for `generation.generate`; the blocklist first: experts choose among the rest.

    Args:
        phrases: never written, see `blocklist.Blocklist`.
        expert, anti: export folders, see `experts.Experts`, whose alpha and top-p these are.
        dtype: of the experts' parameters in memory.

    Raises:
        UserError: an expert with another tokenizer, a tokenizer whose tokens are no pieces of text, an empty phrase.
    """
    found: list[Guide] = []
    if phrases:
        found.append(blocklist.Blocklist(phrases, loaded.tokenizer))
    if expert or anti:
        more, less = (
            experts.load(folder, loaded.tokenizer, loaded.config.vocab, dtype) if folder else None
            for folder in (expert, anti)
        )
        found.append(experts.Experts(more, less, alpha, top_p))
    return found


def of_arguments(args: argparse.Namespace, loaded: Loaded[GPT]) -> list[Guide]:
    """What a command's --block, --expert, --anti-expert and --alpha ask for.

    Raises:
        UsageError: a weight without an expert.
        UserError: as `blocklist.read` and `guides`.
    """
    if args.alpha is not None and not (args.expert or args.anti_expert):
        raise UsageError("--alpha weighs experts: give --expert DIR, --anti-expert DIR, or both")
    alpha = experts.ALPHA if args.alpha is None else args.alpha
    return guides(loaded, blocklist.read(args.block) if args.block else (), args.expert, args.anti_expert, alpha)
