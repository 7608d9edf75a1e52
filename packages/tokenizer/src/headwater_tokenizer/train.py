"""Learn a byte-level BPE vocabulary (Sennrich et al. 2016; Radford et al. 2019), as Hugging Face tokenizers would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.manifest import canonical_json, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.corpus import SPLITS, draw, read_split
from headwater_tokenizer.encoder import Encoder, buffers, bytes_of_characters
from headwater_tokenizer.learn_bpe import count_pieces, learn_merges, new_counter
from headwater_tokenizer.measure import measure
from headwater_tokenizer.pieces import PATTERNS
from headwater_tokenizer.special import NAMED, STARTING_BYTES, reserved_name, transformers_config
from headwater_tokenizer.splits import split_pattern

LONGEST_SHOWN = 20


def train(run: Run) -> None:
    """Stage `train`: corpus -> tokenizer.json, tokenizer_config.json, metrics.json."""
    config: TrainConfig = run.config
    corpus = run.inputs["corpus"]
    tokenizer = learn(_texts(run), config)
    # to_str, not save: a full disk then is an OSError with a number, not tokenizers' bare Exception.
    write_atomic(run.out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(run.out / "tokenizer_config.json", canonical_json(transformers_config()))

    run.log(f"learned {config.learned} tokens, {tokenizer.get_vocab_size()} ids in all; measuring")
    encoder = Encoder(run.out)
    sample, occurrences = measure(encoder, draw(corpus, config.sample_bytes, config.seed))
    heldout, _ = measure(encoder, read_split(corpus, "heldout"))
    learned = tokenizer.get_vocab(with_added_tokens=False)
    run.write_metrics(
        {
            "vocabulary": encoder.vocab_size,
            "learned": config.learned,
            "named": len(NAMED),
            "reserved": encoder.vocab_size - config.learned - len(NAMED),
            "unused_in_sample": int((occurrences[: config.learned] == 0).sum()),
            "longest_tokens": _longest(learned),
            "sample": sample,
            SPLITS[1]: heldout,
        }
    )
    run.log(f"held-out: {heldout['bytes_per_token']:.3f} bytes a token, {heldout['tokens_per_word']:.3f} tokens a word")


def learn(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """Train on batches of texts and lay out the whole vocabulary.

    The result depends on the multiset of texts only: pair counts are sums, and ties go to the pair of lower ids. It is
    the one that tokenizers' BpeTrainer gives (tests/test_train.py), at a fraction of its cost.

    Raises:
        UserError: the texts do not hold enough pairs for the vocabulary.
    """
    pattern = split_pattern(config.split, config.digits)
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
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    reached = tokenizer.get_vocab_size()
    if reached < config.learned:
        raise UserError(
            f"the sample holds only {reached - 256} pairs to merge at min_frequency {config.min_frequency}, but "
            f"vocab_size {config.vocab_size} asks for {config.learned - 256}: set vocab_size to at most "
            f"{config.vocab_size - config.learned + reached}, lower min_frequency, or give more text"
        )
    padded = -(-config.vocab_size // config.pad_to) * config.pad_to
    names = [*NAMED, *(reserved_name(i) for i in range(padded - config.learned - len(NAMED)))]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def _texts(run: Run) -> Iterator[pa.LargeStringArray]:
    documents, size = 0, 0
    for batch in draw(run.inputs["corpus"], run.config.sample_bytes, run.config.seed):
        documents, size = documents + len(batch.ids), size + int(pc.sum(pc.binary_length(batch.texts)).as_py() or 0)
        run.progress(f"{documents} documents, {size / 1e6:.1f} MB read")
        yield batch.texts
    run.log(f"sample: {documents} documents, {size / 1e6:.1f} MB; merging pairs")


def _longest(vocabulary: dict[str, int]) -> list[str]:
    """The longest learned tokens as text; what is no whole character shows as the replacement character."""
    byte_of = bytes_of_characters()
    tokens = sorted(vocabulary, key=lambda token: (-len(token), vocabulary[token]))[:LONGEST_SHOWN]
    return [bytes(byte_of[c] for c in token).decode(errors="replace") for token in tokens]
