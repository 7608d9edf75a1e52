"""Sample to tokenizer: one function for every algorithm, and what each puts round its model.

A text goes through normaliser, pre-tokeniser and model; ids come back through the decoder. All of it lies in one
tokenizer.json, so that tokenizers and transformers do as the training did.

| algorithm | cut at | entries | decodes to |
| --- | --- | --- | --- |
| bpe | split | 256 bytes, merged tokens | the text |
| unigram | split | bytes, pieces of at most 16 characters | the text |
| sentencepiece-bpe, -unigram | blanks, line ends | bytes, pieces of at most 16 characters | the text |
| characters | nothing | bytes, characters | the text |
| bytes | nothing | 256 bytes | the text |
| wordpiece | white space, marks | words, their beginnings and `##` ends | words, one blank between |
| words, moses | white space; Moses rules | words | words, one blank between |
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import polars as pl
import pyarrow as pa
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_bpe import byte_tokens, learn_byte_bpe
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.counting import (
    WORDS,
    WORDS_AND_MARKS,
    Count,
    Texts,
    count_characters,
    count_cuts,
    count_matches,
    count_pieces,
)
from headwater_tokenizer.learn_sentencepiece import learn_raw_bpe, learn_raw_unigram, learn_unigram
from headwater_tokenizer.learn_words import learn_characters, learn_wordpiece, learn_words
from headwater_tokenizer.moses import moses_pattern
from headwater_tokenizer.pieces import BY_SCRIPT, PATTERNS
from headwater_tokenizer.special import NAMED, reserved_name
from headwater_tokenizer.splits import RAW, split_pattern

_FORMS = {"nfc": normalizers.NFC, "nfd": normalizers.NFD, "nfkc": normalizers.NFKC, "nfkd": normalizers.NFKD}


def learn(texts: Texts, config: TrainConfig) -> Tokenizer:
    """Train on batches of texts and lay out the whole vocabulary.

    The result depends on the multiset of texts only (sentencepiece-*: on their order, too).

    Raises:
        UserError: the texts do not hold enough for the vocabulary, or it is too small for them.
    """
    count = count_of(config)
    return learn_counted(count(texts), config) if count else _whole(_of_text(normalized(texts, config), config), config)


def learn_counted(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    """Train on what `count_of` counted. Raises as `learn`."""
    return _whole(_of_count(count, config), config)


def count_of(config: TrainConfig) -> Count | None:
    """How texts are counted for an algorithm; None for those that are trained on text itself, or on nothing."""
    count: Count
    match config.algorithm:
        case "bpe" | "unigram":
            pattern = PATTERNS[config.split] | (BY_SCRIPT if config.scripts else 0)
            count = partial(count_pieces, pattern=pattern, digits=config.digits)
        case "wordpiece":
            count = partial(count_matches, pattern=WORDS_AND_MARKS)
        case "words":
            count = partial(count_matches, pattern=WORDS)
        case "moses":
            cut = _cut(config)
            assert cut is not None
            count = partial(count_cuts, cut=cut)
        case "characters":
            count = count_characters
        case _:
            return None
    return lambda texts: count(normalized(texts, config))


def normalized(texts: Texts, config: TrainConfig) -> Iterator[pa.LargeStringArray]:
    """The texts as the tokenizer will see them."""
    by = _normalizer(config)
    for batch in texts:
        yield batch if by is None else pa.array([by.normalize_str(t) for t in batch.to_pylist()], pa.large_string())


def _of_count(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    match config.algorithm:
        case "bpe":
            return learn_byte_bpe(count, config)
        case "wordpiece":
            return learn_wordpiece(count, config)
        case "unigram":
            return learn_unigram(count, config)
        case "characters":
            return learn_characters(count, config)
    return learn_words(count, config)


def _of_text(texts: Texts, config: TrainConfig) -> Tokenizer:
    match config.algorithm:
        case "sentencepiece-bpe":
            return learn_raw_bpe(texts, config)
        case "sentencepiece-unigram":
            return learn_raw_unigram(texts, config)
    return byte_tokens()


def _whole(tokenizer: Tokenizer, config: TrainConfig) -> Tokenizer:
    """A learned model with normaliser, pre-tokeniser, decoder and special tokens."""
    normalizer = _normalizer(config)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    cut = _cut(config)
    if cut is not None:
        tokenizer.pre_tokenizer = cut
    decoder = _decoder(config)
    if decoder is not None:
        tokenizer.decoder = decoder
    padded = -(-(config.learned + len(NAMED) + config.reserved) // config.pad_to) * config.pad_to
    names = [*NAMED, *(reserved_name(i) for i in range(padded - config.learned - len(NAMED)))]
    if clash := sorted(set(names[1:]) & set(tokenizer.get_vocab())):
        raise UserError(
            f"special token {clash[0]} is entry {tokenizer.token_to_id(clash[0])} that {config.algorithm} learned from "
            "the sample already; take it out of the corpus, or learn fewer entries (vocab_size)"
        )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def _normalizer(config: TrainConfig) -> normalizers.Normalizer | None:
    steps = [_FORMS[config.normalization]()] if config.normalization != "none" else []
    steps += [normalizers.Lowercase()] if config.lowercase else []
    return normalizers.Sequence(steps) if steps else None


def _cut(config: TrainConfig) -> pre_tokenizers.PreTokenizer | None:
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    match config.algorithm:
        case "bpe":
            return pre_tokenizers.Sequence(
                [_split(split_pattern(config.split, config.digits, config.scripts)), as_bytes]
            )
        case "unigram":
            return _split(split_pattern(config.split, config.digits, config.scripts))
        case "sentencepiece-bpe" | "sentencepiece-unigram":
            return _split(RAW)
        case "wordpiece":
            return pre_tokenizers.BertPreTokenizer()
        case "words":
            return pre_tokenizers.WhitespaceSplit()
        case "moses":
            return pre_tokenizers.Split(Regex(moses_pattern(config.language)), "removed", invert=True)
        case "bytes":
            return as_bytes
    return None


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _decoder(config: TrainConfig) -> decoders.Decoder | None:
    if config.algorithm in ("bpe", "bytes"):
        return decoders.ByteLevel()
    if config.algorithm == "wordpiece":
        return decoders.WordPiece(prefix="##", cleanup=False)
    if config.has_fallback:
        return decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return None
