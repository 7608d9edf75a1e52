"""WordPiece, word-level, character-level and byte-level vocabularies, as models of tokenizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.learn_bpe import merge_symbols
from headwater_tokenizer.special import UNKNOWN

_MARK = r"!-/:-@\[-`{-~\p{P}"
_WORDS_AND_MARKS = rf"[{_MARK}]|[^\s{_MARK}]+"
"""As tokenizers' BertPreTokenizer cuts."""
CONTINUED = "##"


def learn_wordpiece(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """WordPiece over words and marks: merges by count, then longest match first (Devlin et al. 2018, section 3).

    The merges are those of tokenizers' WordPieceTrainer, whose entries come in another order in each run.

    Raises:
        UserError: the texts do not hold enough pairs for the vocabulary.
    """
    words, counts = _count_words(texts)
    characters = _characters(words, counts, config)
    known = {name: i for i, name in enumerate([*characters, *(CONTINUED + c for c in characters)])}
    keep = [i for i, word in enumerate(words) if all(c in known for c in word)]
    symbols = [
        np.array([known[c if at == 0 else CONTINUED + c] for at, c in enumerate(words[i])], np.int32) for i in keep
    ]
    starts = np.cumsum([0, *map(len, symbols)])
    pairs = merge_symbols(
        np.concatenate([np.zeros(0, np.int32), *symbols]), starts, counts[keep], len(known),
        2 * max(config.learned - len(known), 0), config.min_frequency, None,
    )  # fmt: skip
    names = list(known)
    for left, right in pairs.tolist():
        names.append(names[left] + names[right].removeprefix(CONTINUED))
    names = list(dict.fromkeys(names))[: config.learned]  # two pairs can spell one entry
    vocabulary = _in_full({name: i for i, name in enumerate(names)}, config)
    return Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))


def _count_words(texts: Iterable[pa.LargeStringArray]) -> tuple[list[str], np.ndarray]:
    """Distinct words and marks in the order of the alphabet, and how often each stands in the texts."""
    whole = pl.DataFrame(schema={"word": pl.String, "count": pl.UInt64})
    for batch in texts:
        words = pl.Series("word", batch).str.extract_all(_WORDS_AND_MARKS).explode().drop_nulls()
        counted = words.value_counts(name="count").with_columns(pl.col("count").cast(pl.UInt64))
        whole = pl.concat([whole, counted]).group_by("word").agg(pl.col("count").sum())
    whole = whole.sort("word")
    return whole["word"].to_list(), whole["count"].to_numpy().astype(np.int64)


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


def learn_words(
    texts: Iterable[pa.LargeStringArray], config: TrainConfig, cut: pre_tokenizers.PreTokenizer
) -> Tokenizer:
    """The commonest words, as `cut` finds them; of equally common ones the first of the alphabet.

    Raises:
        UserError: the texts do not hold enough words.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = cut
    trainer = trainers.WordLevelTrainer(
        vocab_size=config.learned, min_frequency=config.min_frequency, show_progress=False
    )
    tokenizer.train_from_iterator(_plain(texts), trainer)
    return Tokenizer(models.WordLevel(_in_full(tokenizer.get_vocab(), config), unk_token=UNKNOWN))


def learn_characters(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """An entry for each of the characters that make up `coverage` of the sample, the commonest first.

    Raises:
        UserError: the vocabulary has no room for them, or asks for more than there are.
    """
    counts = np.zeros(0x110000, np.int64)
    for batch in texts:
        points = np.frombuffer("".join(batch.to_pylist()).encode("utf-32-le"), np.uint32)
        counts += np.bincount(points, minlength=len(counts))
    order = np.argsort(-counts, kind="stable")
    order = order[: int((counts[order] >= max(config.min_frequency, 1)).sum())]
    covered = np.cumsum(counts[order]) / max(int(counts.sum()), 1)
    needed = min(int(np.searchsorted(covered, config.coverage)) + 1, len(order))
    first = byte_entries() if config.byte_fallback else []
    room = config.learned - len(first)
    if needed > room:
        raise _no_room(needed, room, config)
    names = [*first, *map(chr, order[:room].tolist())]
    vocabulary = _in_full({name: i for i, name in enumerate(names)}, config)
    return Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN, byte_fallback=config.byte_fallback))


def byte_tokens() -> Tokenizer:
    """Bytes and nothing else, an id a byte (Xue et al. 2021, ByT5, arXiv 2105.13626)."""
    return Tokenizer(models.BPE({character: byte for character, byte in bytes_of_characters().items()}, []))


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


def _plain(texts: Iterable[pa.LargeStringArray]) -> Iterator[list[str]]:
    for batch in texts:
        yield batch.to_pylist()
