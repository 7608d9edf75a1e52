"""Stage `train`: a sample of the corpus to a tokenizer folder, and how well it fits the text."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from headwater_tokenizer._contracts.manifest import canonical_json, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.algorithms import learn
from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.corpus import SPLITS, Batch, draw, read_split
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.measure import measure
from headwater_tokenizer.special import NAMED, transformers_config

LONGEST_SHOWN = 20


def train(run: Run) -> None:
    """Stage `train`: corpus -> tokenizer.json, tokenizer_config.json, metrics.json."""
    config: TrainConfig = run.config
    tokenizer = learn(_texts(run), config)
    # to_str, not save: a full disk then is an OSError with a number, not tokenizers' bare Exception.
    write_atomic(run.out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(run.out / "tokenizer_config.json", canonical_json(transformers_config()))

    run.log(f"learned {config.learned} tokens, {tokenizer.get_vocab_size()} ids in all; measuring")
    encoder = Encoder(run.out)
    sample, occurrences = measure(encoder, _sample(run))
    heldout, _ = measure(encoder, read_split(run.inputs["corpus"], "heldout"))
    run.write_metrics(
        {
            "algorithm": config.algorithm,
            "vocabulary": encoder.vocab_size,
            "learned": config.learned,
            "named": len(NAMED),
            "reserved": encoder.vocab_size - config.learned - len(NAMED),
            "unused_in_sample": int((occurrences[: config.learned] == 0).sum()),
            "longest_tokens": _longest(tokenizer, config),
            "sample": sample,
            SPLITS[1]: heldout,
        }
    )
    run.log(f"held-out: {heldout['bytes_per_token']:.3f} bytes a token, {heldout['tokens_per_word']:.3f} tokens a word")


def _sample(run: Run) -> Iterator[Batch]:
    config = run.config
    return draw(run.inputs["corpus"], config.sample_bytes, config.seed, config.source_weights, config.language_weights)


def _texts(run: Run) -> Iterator[pa.LargeStringArray]:
    documents, size = 0, 0
    for batch in _sample(run):
        documents, size = documents + len(batch.ids), size + int(pc.sum(pc.binary_length(batch.texts)).as_py() or 0)
        run.progress(f"{documents} documents, {size / 1e6:.1f} MB read")
        yield batch.texts
    run.log(f"sample: {documents} documents, {size / 1e6:.1f} MB; learning")


def _longest(tokenizer: Tokenizer, config: TrainConfig) -> list[str]:
    """The longest learned tokens as text; what is no whole character shows as the replacement character."""
    named = set(NAMED) | set(byte_entries())
    vocabulary = {name: i for name, i in tokenizer.get_vocab(with_added_tokens=False).items() if name not in named}
    tokens = sorted(vocabulary, key=lambda token: (-len(token), vocabulary[token]))[:LONGEST_SHOWN]
    if config.algorithm not in ("bpe", "bytes"):
        return tokens
    byte_of = bytes_of_characters()
    return [bytes(byte_of[c] for c in token).decode(errors="replace") for token in tokens]
