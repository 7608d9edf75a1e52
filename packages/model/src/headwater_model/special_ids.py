"""Ids beside the text's own: what starts a decoder, masks a token, stands for a missing span."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

SENTINELS = 100  # as T5's vocabulary has
START, MASK = ("<|start|>", "<pad>", "[PAD]"), ("<|mask|>", "<mask>", "[MASK]")  # ours, then T5's, BERT's and RoBERTa's
SENTINEL = "<extra_id_{}>"


@dataclass(frozen=True)
class SpecialIds:
    """Ids that mark what is missing; a tokenizer that knows none gets them above its own."""

    start: int
    """Starts the decoder, and pads, as in T5."""
    mask: int
    sentinels: tuple[int, ...]
    """One for each span taken out of a window, in order."""

    COUNT = 2 + SENTINELS

    @classmethod
    def above(cls, vocabulary: int) -> SpecialIds:
        """The ids that follow the tokenizer's `vocabulary`."""
        return cls(vocabulary, vocabulary + 1, tuple(range(vocabulary + 2, vocabulary + 2 + SENTINELS)))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        """Those that the tokenizer names, be it ours, T5's or BERT's; else those above its vocabulary."""
        own = cls.above(tokenizer.get_vocab_size())
        found = (tokenizer.token_to_id(SENTINEL.format(i)) for i in range(SENTINELS))
        named = tuple(i for i in found if i is not None)
        sentinels = named if len(named) == SENTINELS else own.sentinels
        return cls(_named(tokenizer, START, own.start), _named(tokenizer, MASK, own.mask), sentinels)

    @property
    def highest(self) -> int:
        """The vocabulary must reach beyond it."""
        return max(self.start, self.mask, *self.sentinels)

    @staticmethod
    def names() -> list[str]:
        """The tokens, in the order of the ids that `above` gives them."""
        return [START[0], MASK[0], *(SENTINEL.format(i) for i in range(SENTINELS))]


def _named(tokenizer: Tokenizer, names: tuple[str, ...], otherwise: int) -> int:
    found = (tokenizer.token_to_id(name) for name in names)
    return next((i for i in found if i is not None), otherwise)
