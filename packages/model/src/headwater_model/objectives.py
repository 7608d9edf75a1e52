"""What a model learns from a window of tokens beyond the next token: what follows a prefix, missing spans, masks.

An objective turns windows of text into samples: the batch entries that a model's `forward` takes, labels and the mask
of the loss. A sample is a pure function of the window, the seed and the sample's place in the run's order: every
layout and restart sees the same one, and a window that comes again in a later epoch is corrupted anew (as RoBERTa
does, Liu et al., arXiv:1907.11692, section 4.1).

    PrefixLM         prefix             each next token after a visible prefix
    SpanCorruption   encoder_decoder    the spans taken out of the input
    MaskedLM         encoder            the tokens masked in the input
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ._contracts.errors import UserError
from ._contracts.sequences import IGNORED
from .model_config import ModelConfig
from .special_ids import SpecialIds
from .tokens import Rows
from .training_config import DataConfig, ObjectiveConfig

Batch = dict[str, Tensor]


class Objective(Protocol):
    """Windows in, samples out: what `tokens.TrainingData` and `heldout.HeldOut` take as their objective."""

    @property
    def window(self) -> int:
        """Tokens of the text that one sample takes; their `context` is one less."""

    def __call__(self, rows: Rows, first: int) -> Batch:
        """One sample a window.

        Args:
            first: place of the first window in the run's order (or number of the held-out window), the others follow.

        Returns:
            "tokens" and what else the model takes; "labels", int64, with the source of each in "source" and float32
            "loss_mask" of the same shape.
        """


@dataclass(frozen=True)
class PrefixLM:
    """Predict each next token after a prefix, all of which every position sees.

    Raffel et al., arXiv:1910.10683, section 3.2.1; Wang et al., arXiv:2204.05832. The prefix is uniform from one token
    to all but one, so that on average half of the window is predicted.
    """

    context: int
    seed: int

    @property
    def window(self) -> int:
        """Every position has a token before it."""
        return self.context + 1

    def __call__(self, rows: Rows, first: int) -> Batch:
        """tokens, labels: [n, context]; prefix: int64 [n]. The prefix's last position is the first that counts."""
        places = range(first, first + len(rows.tokens))
        prefix = torch.tensor([int(generator(self.seed, i).integers(1, self.context + 1)) for i in places])
        return {
            "tokens": rows.tokens[:, :-1].contiguous(),
            "prefix": prefix,
            "labels": rows.tokens[:, 1:].contiguous(),
            "source": rows.sources[:, 1:].contiguous(),
            "loss_mask": (torch.arange(self.context) >= prefix[:, None] - 1).float(),
        }


@dataclass(frozen=True)
class SpanCorruption:
    """Say what stood where the input has a sentinel (Raffel et al., arXiv:1910.10683, section 3.3.4).

    Spans of `mean_span` tokens on average, `rate` of all tokens together, leave the input; one sentinel stands for
    each. The target is each sentinel followed by its span. Both end with `end`.
    """

    context: int
    seed: int
    ids: SpecialIds
    end: int
    rate: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self) -> None:
        needed = spans(self.window, self.rate, self.mean_span)[1]
        if needed > len(self.ids.sentinels):
            raise UserError(
                f"a window of {self.window} tokens loses {needed} spans, but there are {len(self.ids.sentinels)} "
                "sentinels; raise objective.mean_span or shorten plan.context"
            )

    @property
    def window(self) -> int:
        """As many tokens as give a full input (568 for a context of 512)."""
        return window_of(self.context, self.rate, self.mean_span)

    @property
    def target(self) -> int:
        """Positions of the decoder (114 for a context of 512)."""
        return lengths(self.window, self.rate, self.mean_span)[1]

    def __call__(self, rows: Rows, first: int) -> Batch:
        """tokens: [n, context at most]; decoder_tokens, labels: [n, target]. A sentinel is of its span's source."""
        text, sources = rows.tokens.numpy(), rows.sources.numpy()
        sentinels = np.array(self.ids.sentinels)
        tokens = np.empty((len(text), lengths(self.window, self.rate, self.mean_span)[0]), np.int64)
        labels = np.empty((len(text), self.target), np.int64)
        source = np.empty_like(labels)
        for i, row in enumerate(text):
            missing = span_mask(len(row), self.rate, self.mean_span, generator(self.seed, first + i))
            tokens[i, :-1], labels[i, :-1], places = corrupt(row, missing, sentinels)
            source[i] = sources[i, [*places, -1]]
        tokens[:, -1] = labels[:, -1] = self.end
        decoder = np.roll(labels, 1, axis=1)
        decoder[:, 0] = self.ids.start
        found = {"tokens": tokens, "decoder_tokens": decoder, "labels": labels, "source": source}
        return {**{name: torch.from_numpy(t) for name, t in found.items()}, "loss_mask": torch.ones(labels.shape)}


@dataclass(frozen=True)
class MaskedLM:
    """Say which tokens were masked (Devlin et al., arXiv:1810.04805, section 3.1, task 1).

    Of `rate` of the tokens, 80% become the mask, 10% a random id, 10% stay what they are. `end` is never chosen.
    """

    context: int
    seed: int
    ids: SpecialIds
    end: int
    vocabulary: int
    rate: float = 0.15

    @property
    def window(self) -> int:
        """The input itself."""
        return self.context

    def __call__(self, rows: Rows, first: int) -> Batch:
        """tokens, labels (IGNORED where nothing is asked): [n, context]."""
        tokens = rows.tokens.numpy().copy()
        labels = np.full(tokens.shape, IGNORED, np.int64)
        for i, row in enumerate(tokens):
            draw = generator(self.seed, first + i)
            own = np.flatnonzero(row != self.end)
            chosen = draw.choice(own, min(len(own), max(1, round(self.rate * len(own)))), replace=False)
            labels[i, chosen] = row[chosen]
            fate = draw.random(len(chosen))
            row[chosen[fate < 0.8]] = self.ids.mask
            other = chosen[fate >= 0.9]
            row[other] = draw.integers(0, self.vocabulary, len(other))
        return {
            "tokens": torch.from_numpy(tokens),
            "labels": torch.from_numpy(labels),
            "source": rows.sources,
            "loss_mask": torch.from_numpy(labels != IGNORED).float(),
        }


def build(
    model: ModelConfig, config: ObjectiveConfig, data: DataConfig, seed: int, tokenizer: Tokenizer, end: int
) -> PrefixLM | SpanCorruption | MaskedLM | None:
    """The objective of a kind of model; None for a decoder, which learns each next token.

    Args:
        seed: of the corruption; held-out windows may have one of their own.
        end: id that ends a document.

    Raises:
        UserError: the model's vocabulary has no room for the special ids, there are too few sentinels, or documents
            are to be masked, which goes with a decoder only.
    """
    if model.kind == "decoder":
        return None
    if data.document_mask:
        raise UserError(f"data.document_mask goes with a model of kind decoder, not {model.kind}; switch it off")
    if model.kind == "prefix":
        return PrefixLM(model.context, seed)
    ids = SpecialIds.of(tokenizer)
    if ids.highest >= model.vocab:
        raise UserError(
            f"the objective of kind {model.kind} needs ids up to {ids.highest}, but the model's vocabulary is "
            f"{model.vocab}; make the plan again"
        )
    if model.kind == "encoder":
        return MaskedLM(model.context, seed, ids, end, tokenizer.get_vocab_size(), config.rate)
    return SpanCorruption(model.context, seed, ids, end, config.rate, config.mean_span)


def generator(seed: int, index: int) -> np.random.Generator:
    """The source of one sample's draws: Philox, whose key is the pair, so that no two pairs share a stream."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def spans(window: int, rate: float, mean_span: float) -> tuple[int, int]:
    """Tokens to take out of a window, and in how many spans; some are left, and one between two spans."""
    noise = min(max(round(window * rate), 1), window - 1)
    return noise, min(max(round(noise / mean_span), 1), window - noise)


def lengths(window: int, rate: float, mean_span: float) -> tuple[int, int]:
    """Length of input and of target, the end of each included."""
    noise, count = spans(window, rate, mean_span)
    return window - noise + count + 1, noise + count + 1


def window_of(context: int, rate: float, mean_span: float) -> int:
    """The longest window whose input is no longer than `context` (T5's `random_spans_helper`).

    Raises:
        UserError: the context holds no window.
    """
    window = 1
    while lengths(window + 1, rate, mean_span)[0] <= context:
        window += 1
    if window < 2:
        raise UserError(f"a context of {context} is too short for spans; raise plan.context to 4 at least")
    return window


def span_mask(size: int, rate: float, mean_span: float, draw: np.random.Generator) -> np.ndarray:
    """bool [size], True on what is taken out.

    Kept and missing stretches alternate, the first is kept, and every way of cutting is as likely (T5's
    `random_spans_noise_mask`).
    """
    noise, count = spans(size, rate, mean_span)
    stretches = np.stack([_parts(size - noise, count, draw), _parts(noise, count, draw)], axis=1)
    return np.repeat(np.arange(2 * count) % 2 == 1, stretches.ravel())


def corrupt(row: np.ndarray, missing: np.ndarray, sentinels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input and target of a row, without the id that ends them.

    Args:
        row: ids [size].
        missing: bool [size], no more stretches of True than sentinels.
        sentinels: ids.

    Returns:
        the row with a sentinel in place of each missing stretch; each sentinel followed by its stretch; where in the
        row each id of the latter stood, a sentinel standing where its stretch begins.
    """
    starts = missing & ~np.concatenate([[False], missing[:-1]])
    order = sentinels[: starts.sum()]
    shown = row.copy()
    shown[starts] = order
    places = np.flatnonzero(missing)
    before = np.flatnonzero(starts[places])
    target = np.insert(row[places], before, order)
    return shown[~missing | starts], target, np.insert(places, before, places[before])


def _parts(items: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """A random way of cutting `items` into `count` parts of one at least."""
    cuts = np.sort(draw.choice(items - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))
