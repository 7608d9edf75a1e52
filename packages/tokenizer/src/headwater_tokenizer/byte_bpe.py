"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) and plain bytes, as models of tokenizers.

The merges are those of tokenizers' BpeTrainer (tests/test_train.py), at a fraction of its cost.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from tokenizers import Tokenizer, models

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import bytes_of_characters
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.encoder import buffers
from headwater_tokenizer.learn_bpe import learn_merges
from headwater_tokenizer.special import STARTING_BYTES


def learn_byte_bpe(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    """Byte-level BPE from the counted pieces of the split.

    Raises:
        UserError: the pieces do not hold enough pairs for the vocabulary.
    """
    byte_of = bytes_of_characters()
    tokens = sorted(byte_of)
    byte_ids = np.zeros(STARTING_BYTES, np.int32)
    byte_ids[[byte_of[c] for c in tokens]] = np.arange(STARTING_BYTES)
    data, starts = buffers(count["piece"].to_arrow().cast("large_string"))
    learned = config.learned - STARTING_BYTES
    pairs = learn_merges(
        byte_ids[data[starts[0] : starts[-1]]], starts - starts[0], count["count"].to_numpy(), STARTING_BYTES, learned,
        config.min_frequency, config.max_token_bytes, blank_runs(config.blank_runs, int(byte_ids[ord(" ")])),
    )  # fmt: skip
    if len(pairs) < learned:
        raise UserError(
            f"the sample holds only {len(pairs)} pairs to merge at min_frequency {config.min_frequency}, but "
            f"vocab_size {config.vocab_size} asks for {learned}: set vocab_size to at most "
            f"{config.vocab_size - learned + len(pairs)}, lower min_frequency, or give more text"
        )
    merges = []
    for left, right in pairs.tolist():
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))


def blank_runs(most: int, blank: int) -> np.ndarray:
    """The pairs that make every run of 2 to `most` blanks one token, (pairs, 2) int64.

    A run is first merged into powers of two, the highest first in the text, then from its end: 7 = 4 2 1 -> 4 3 -> 7.

    Args:
        blank: id of the blank; the pairs take the ids from 256 on.
    """
    ids = {1: blank}
    pairs: list[tuple[int, int]] = []

    def merge(left: int, right: int) -> None:
        ids[left + right] = STARTING_BYTES + len(pairs)
        pairs.append((ids[left], ids[right]))

    power = 1
    while 2 * power <= most:
        merge(power, power)
        power *= 2
    for left in (1 << bit for bit in range(1, most.bit_length())):
        for right in range(1, min(left - 1, most - left) + 1):
            merge(left, right)
    return np.array(pairs, np.int64).reshape(-1, 2)


def byte_tokens() -> Tokenizer:
    """Bytes and nothing else, an id a byte (Xue et al. 2021, ByT5, arXiv 2105.13626)."""
    return Tokenizer(models.BPE({character: byte for character, byte in bytes_of_characters().items()}, []))
