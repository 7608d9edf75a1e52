"""WordPiece, word-level and character-level vocabularies from counts, as models of tokenizers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
from tokenizers import Tokenizer, models

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import byte_entries
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.learn_bpe import learn_merges
from headwater_tokenizer.special import UNKNOWN

CONTINUED = "##"


def learn_wordpiece(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    """WordPiece over counted words and marks: merges by count, then longest match first (Devlin et al. 2018, sect. 3).

    The merges are those of tokenizers' WordPieceTrainer, whose entries come in another order in each run.

    Raises:
        UserError: the words do not hold enough pairs for the vocabulary.
    """
    count = count.sort("piece")
    words, counts = count["piece"].to_list(), count["count"].to_numpy().astype(np.int64)
    characters = _characters(words, counts, config)
    known = {name: i for i, name in enumerate([*characters, *(CONTINUED + c for c in characters)])}
    keep = [i for i, word in enumerate(words) if all(c in known for c in word)]
    symbols = [
        np.array([known[c if at == 0 else CONTINUED + c] for at, c in enumerate(words[i])], np.int32) for i in keep
    ]
    starts = np.cumsum([0, *map(len, symbols)])
    pairs = learn_merges(
        np.concatenate([np.zeros(0, np.int32), *symbols]), starts, counts[keep], len(known),
        2 * max(config.learned - len(known), 0), config.min_frequency, None,
    )  # fmt: skip
    names = list(known)
    for left, right in pairs.tolist():
        names.append(names[left] + names[right].removeprefix(CONTINUED))
    names = list(dict.fromkeys(names))[: config.learned]  # two pairs can spell one entry
    vocabulary = _in_full({name: i for i, name in enumerate(names)}, config)
    return Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))


def _characters(words: list[str], counts: np.ndarray, config: TrainConfig) -> list[str]:
    """Those that make up `coverage` of the words' text, in the order of their code points.

    Raises:
        UserError: the vocabulary has no room for them, at a word's beginning and within.
    """
    found: Counter[str] = Counter()
    for word, count in zip(words, counts.tolist(), strict=True):
        for character in word:
            found[character] += count
    order = sorted(found, key=lambda c: (-found[c], c))
    covered = np.cumsum([found[c] for c in order]) / max(found.total(), 1)
    needed = min(int(np.searchsorted(covered, config.coverage)) + 1, len(order))
    if 2 * needed > config.learned:
        raise _no_room(2 * needed, config.learned, config)
    return sorted(order[:needed])


def _no_room(needed: int, room: int, config: TrainConfig) -> UserError:
    return UserError(
        f"vocab_size {config.vocab_size} has no room for the {needed} entries of the characters that make up "
        f"{config.coverage:.2%} of the sample: set it to at least {config.vocab_size - room + needed}, or lower "
        "coverage"
    )


def learn_words(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    """The commonest words; of equally common ones the first of the alphabet.

    Raises:
        UserError: there are not enough words.
    """
    vocabulary = _in_full({word: i for i, word in enumerate(_commonest(count, config))}, config)
    return Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))


def learn_characters(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    """An entry for each of the characters that make up `coverage` of the sample, the commonest first.

    Raises:
        UserError: the vocabulary has no room for them, or asks for more than there are.
    """
    common = count.filter(pl.col("count") >= config.min_frequency).sort("count", "piece", descending=[True, False])
    covered = common["count"].cum_sum().to_numpy() / max(int(count["count"].sum()), 1)
    needed = min(int(np.searchsorted(covered, config.coverage)) + 1, len(common))
    first = byte_entries() if config.byte_fallback else []
    room = config.learned - len(first)
    if needed > room:
        raise _no_room(needed, room, config)
    names = [*first, *_commonest(count, config)[:room]]
    vocabulary = _in_full({name: i for i, name in enumerate(names)}, config)
    return Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN, byte_fallback=config.byte_fallback))


def _commonest(count: pl.DataFrame, config: TrainConfig) -> list[str]:
    common = count.filter(pl.col("count") >= config.min_frequency)
    return common.sort("count", "piece", descending=[True, False])["piece"].head(config.learned).to_list()


def _in_full(vocabulary: dict[str, int], config: TrainConfig) -> dict[str, int]:
    """The vocabulary by id with the unknown token as its last.

    Raises:
        UserError: it is smaller than asked for.
    """
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    if len(names) < config.learned:
        raise UserError(
            f"the sample holds only {len(names)} entries for {config.algorithm} at min_frequency "
            f"{config.min_frequency}, but vocab_size {config.vocab_size} asks for {config.learned}: set vocab_size to "
            f"at most {config.vocab_size - config.learned + len(names)}, lower min_frequency, or give more text"
        )
    return {name: i for i, name in enumerate([*names, UNKNOWN])}
