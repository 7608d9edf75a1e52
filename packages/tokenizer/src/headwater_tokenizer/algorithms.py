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

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import bytes_of_characters
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.encoder import buffers
from headwater_tokenizer.learn_bpe import count_pieces, learn_merges, new_counter
from headwater_tokenizer.learn_sentencepiece import learn_raw_bpe, learn_raw_unigram, learn_unigram
from headwater_tokenizer.learn_words import byte_tokens, learn_characters, learn_wordpiece, learn_words
from headwater_tokenizer.moses import moses_pattern
from headwater_tokenizer.pieces import PATTERNS
from headwater_tokenizer.special import NAMED, STARTING_BYTES, reserved_name
from headwater_tokenizer.splits import RAW, split_pattern

_FORMS = {"nfc": normalizers.NFC, "nfd": normalizers.NFD, "nfkc": normalizers.NFKC, "nfkd": normalizers.NFKD}


def learn(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """Train on batches of texts and lay out the whole vocabulary.

    The result depends on the multiset of texts only (sentencepiece-*: on their order, too).

    Raises:
        UserError: the texts do not hold enough for the vocabulary, or it is too small for them.
    """
    normalizer = _normalizer(config)
    tokenizer = _model(_normalized(texts, normalizer), config)
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
        raise UserError(f"special token {clash[0]} is an entry that {config.algorithm} learned from the sample")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def _model(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    match config.algorithm:
        case "bpe":
            return learn_byte_bpe(texts, config)
        case "wordpiece":
            return learn_wordpiece(texts, config)
        case "unigram":
            return learn_unigram(texts, config)
        case "sentencepiece-bpe":
            return learn_raw_bpe(texts, config)
        case "sentencepiece-unigram":
            return learn_raw_unigram(texts, config)
        case "words" | "moses":
            cut = _cut(config)
            assert cut is not None
            return learn_words(texts, config, cut)
        case "characters":
            return learn_characters(texts, config)
        case "bytes":
            return byte_tokens()


def learn_byte_bpe(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): the merges of tokenizers' BpeTrainer
    (tests/test_train.py), at a fraction of its cost.

    Raises:
        UserError: the texts do not hold enough pairs for the vocabulary.
    """
    counter = new_counter()
    for batch in texts:
        data, offsets = buffers(batch)
        counter = count_pieces(counter, data, offsets, class_table(), PATTERNS[config.split], config.digits)
    byte_of = bytes_of_characters()
    tokens = sorted(byte_of)
    byte_ids = np.zeros(STARTING_BYTES, np.int64)
    byte_ids[[byte_of[c] for c in tokens]] = np.arange(STARTING_BYTES)
    learned = config.learned - STARTING_BYTES
    pairs = learn_merges(counter, byte_ids, learned, config.min_frequency, config.max_token_bytes)
    merges = []
    for left, right in pairs.tolist():
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    if len(merges) < learned:
        raise UserError(
            f"the sample holds only {len(merges)} pairs to merge at min_frequency {config.min_frequency}, but "
            f"vocab_size {config.vocab_size} asks for {learned}: set vocab_size to at most "
            f"{config.vocab_size - learned + len(merges)}, lower min_frequency, or give more text"
        )
    return Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))


def _normalizer(config: TrainConfig) -> normalizers.Normalizer | None:
    steps = [_FORMS[config.normalization]()] if config.normalization != "none" else []
    steps += [normalizers.Lowercase()] if config.lowercase else []
    return normalizers.Sequence(steps) if steps else None


def _normalized(texts: Iterable[pa.LargeStringArray], by: normalizers.Normalizer | None) -> Iterator:
    for batch in texts:
        yield batch if by is None else pa.array([by.normalize_str(t) for t in batch.to_pylist()], pa.large_string())


def _cut(config: TrainConfig) -> pre_tokenizers.PreTokenizer | None:
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    match config.algorithm:
        case "bpe":
            return pre_tokenizers.Sequence([_split(split_pattern(config.split, config.digits)), as_bytes])
        case "unigram":
            return _split(split_pattern(config.split, config.digits))
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
