"""Experts and anti-experts at decoding: DExperts (Liu et al. 2021, arXiv:2105.03023).

    p(x) = softmax(z + alpha (z_expert - z_anti))        equation 2

z are the logits of the model, of one that was fine-tuned on text as it should be, and of one fine-tuned on text as it
should not be. The model's own top-p comes first (`filter_p` of the authors' code), so that the experts choose among
what it finds likely; where expert or anti-expert is missing, the model stands in its place, as there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import pretrained
from ._contracts.errors import UserError
from .generation import Cached, nucleus
from .gpt import GPT
from .pretrained import Loaded

ALPHA = 2.0
"""The authors' for detoxification (their scripts/our_scripts/toxicity/dexperts.sh)."""
BASE_TOP_P = 0.9
"""The same scripts'."""


class Experts:
    """A guide (`generation.Guide`) by two further models, each with a key-value cache of its own.

    Args:
        expert, anti: of the model's vocabulary; None: the model itself stands in its place (the paper's "anti-only").
        alpha: 0 changes nothing, top-p included.
        top_p: of the model, before the experts are heard; 1: all ids.

    Raises:
        UserError: neither expert nor anti-expert, or a top-p out of (0, 1].
    """

    def __init__(self, expert: GPT | None, anti: GPT | None, alpha: float = ALPHA, top_p: float = BASE_TOP_P):
        if expert is None and anti is None:
            raise UserError("steering by experts needs an expert, an anti-expert, or both")
        if not 0 < top_p <= 1:
            raise UserError(f"top-p {top_p} of the model before its experts is not above 0 and up to 1")
        self.expert, self.anti, self.alpha, self.top_p = expert, anti, alpha, top_p

    def start(self, prompts: list[list[int]], new: int) -> ExpertRows:
        """For a batch of prompts."""
        return ExpertRows(self, prompts, new)


class ExpertRows:
    """Two experts at work on the rows of a batch (`generation.RowGuide`)."""

    def __init__(self, experts: Experts, prompts: list[list[int]], new: int):
        self._experts = experts
        asked = [] if experts.alpha == 0 else [experts.expert, experts.anti]
        self._cached = [None if model is None else Cached(model.eval(), prompts, new) for model in asked]

    def logits(self, logits: Tensor) -> Tensor:
        """Equation 2; -inf outside of the model's nucleus."""
        if self._experts.alpha == 0:
            return logits
        expert, anti = (logits if cached is None else cached.logits() for cached in self._cached)
        return combine(logits, expert, anti, self._experts.alpha, self._experts.top_p)

    def add(self, ids: Tensor) -> None:
        """The ids that were chosen, int64 [batch]."""
        for cached in filter(None, self._cached):
            cached.add(ids)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone."""
        for cached in filter(None, self._cached):
            cached.keep(rows)


def combine(base: Tensor, expert: Tensor, anti: Tensor, alpha: float, top_p: float = 1.0) -> Tensor:
    """z + alpha (z_expert - z_anti) where the base's nucleus is, -inf elsewhere.

    Args:
        base, expert, anti: logits, float32 [batch, vocabulary]; an id that is -inf in `base` stays so.

    Returns:
        float32 [batch, vocabulary].
    """
    kept = nucleus(base, top_p) & (base > -torch.inf)
    return torch.where(kept, base + alpha * (expert - anti), -torch.inf)


def load(folder: Path, tokenizer: Tokenizer, vocabulary: int, dtype: torch.dtype = torch.float32) -> GPT:
    """An expert of a model with this tokenizer.

    Args:
        folder: an export.
        vocabulary: ids of the model, padding ids included.

    Raises:
        UserError: another tokenizer or number of ids; and as `pretrained.load`.
    """
    loaded: Loaded[GPT] = pretrained.load(folder, head="lm", dtype=dtype)
    if loaded.tokenizer.get_vocab() != tokenizer.get_vocab() or loaded.config.vocab != vocabulary:
        raise UserError(
            f"{folder}: another tokenizer than the model's; an expert shares it, so fine-tune one from the model"
        )
    return loaded.model.eval()
