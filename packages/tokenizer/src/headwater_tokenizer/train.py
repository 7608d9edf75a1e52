"""Stage `train`: a sample of the corpus to a tokenizer folder, and how well it fits the text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from headwater_tokenizer._contracts.fanout import fan_out
from headwater_tokenizer._contracts.manifest import canonical_json, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.algorithms import count_of, learn, learn_counted
from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.corpus import SPLITS, Batch, RowGroup, read_split, row_groups, workers_for
from headwater_tokenizer.counting import TEXT_A_PART, read_parts, write_parts
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.measure import measure
from headwater_tokenizer.sampling import Drawing, Ranked, drawn, highest_rank, rank
from headwater_tokenizer.special import NAMED, transformers_config

LONGEST_SHOWN = 20


def train(run: Run) -> None:
    """Stage `train`: corpus -> tokenizer.json, tokenizer_config.json, metrics.json.

    Row groups are ranked, then counted, each once and side by side; after a kill only unfinished ones are done again.
    """
    config: TrainConfig = run.config
    sample = _Sample(run)
    counted: dict = {}
    if count_of(config) is None:
        tokenizer = learn((batch.texts for batch in sample), config)
    else:
        count, counted = sample.count()
        run.log(f"{counted['distinct']} distinct pieces, {counted['kept']} of them kept; learning")
        tokenizer = learn_counted(count, config)
    # to_str, not save: a full disk then is an OSError with a number, not tokenizers' bare Exception.
    write_atomic(run.out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(run.out / "tokenizer_config.json", canonical_json(transformers_config()))

    run.log(f"learned {config.learned} tokens, {tokenizer.get_vocab_size()} ids in all; measuring")
    encoder = Encoder(run.out)
    fitted, occurrences = measure(encoder, sample)
    heldout, _ = measure(encoder, read_split(run.inputs["corpus"], "heldout"))
    run.write_metrics(
        {
            "algorithm": config.algorithm,
            "vocabulary": encoder.vocab_size,
            "learned": config.learned,
            "named": len(NAMED),
            "reserved": encoder.vocab_size - config.learned - len(NAMED),
            "counted": counted,
            "unused_in_sample": int((occurrences[: config.learned] == 0).sum()),
            "longest_tokens": _longest(tokenizer, config),
            "rejected": sample.rejected,
            "sample": fitted,
            SPLITS[1]: heldout,
        }
    )
    run.log(f"held-out: {heldout['bytes_per_token']:.3f} bytes a token, {heldout['tokens_per_word']:.3f} tokens a word")


class _Sample:
    """The documents to learn from; drawn when it is made, read anew each time."""

    def __init__(self, run: Run):
        config: TrainConfig = run.config
        self.run, self.corpus = run, run.inputs["corpus"].resolve()  # as other machines see it
        self.drawing = Drawing(config.seed, config.source_weights, config.language_weights)
        self.groups = row_groups(self.corpus, "train")
        self.config = config if config.workers else config.model_copy(update={"workers": workers_for(self.groups)})
        self.work = (run.work / "groups").resolve()
        self.work.mkdir(exist_ok=True)
        fan_out(run, "draw", partial(_rank_group, drawing=self.drawing, work=self.work), self.groups, self.config)
        ranked = [_read_ranked(group, self.work) for group in self.groups]
        self.highest = highest_rank(ranked, self.drawing, config.sample_bytes, self.corpus)
        sizes = np.concatenate([part.sizes[part.ranks <= self.highest] for part in ranked])
        self.bytes = int(sizes.sum())
        self.rejected = sum(part.rejected for part in ranked)
        aside = f"; {self.rejected} records set aside: null or not UTF-8" if self.rejected else ""
        run.log(f"sample: {len(sizes)} documents, {self.bytes / 1e6:.1f} MB{aside}")

    def __iter__(self) -> Iterator[Batch]:
        for group in self.groups:
            yield from drawn(group.read(), self.drawing, self.highest)

    def count(self) -> tuple[pl.DataFrame, dict]:
        """As of counting.read_parts."""
        parts = self.bytes // TEXT_A_PART + 1
        count = partial(_count_group, sample=(self.drawing, self.highest), config=self.config, parts=parts,
                        work=self.work)  # fmt: skip
        fan_out(self.run, "count", count, self.groups, self.config)
        return read_parts([self.work / group.name for group in self.groups], parts, self.config.max_pieces)


def _rank_group(group: RowGroup, drawing: Drawing, work: Path) -> None:
    found = rank(group.read(), drawing)
    np.save(work / f"{group.name}.npy", np.stack([found.ranks, found.sizes]))
    write_atomic(
        work / f"{group.name}.json", canonical_json([sorted(found.sources), sorted(found.languages), found.rejected])
    )


def _read_ranked(group: RowGroup, work: Path) -> Ranked:
    ranks, sizes = np.load(work / f"{group.name}.npy", allow_pickle=False)
    sources, languages, rejected = json.loads((work / f"{group.name}.json").read_text())
    return Ranked(ranks, sizes.astype(np.int64), set(sources), set(languages), rejected)


def _count_group(group: RowGroup, sample: tuple[Drawing, float], config: TrainConfig, parts: int, work: Path) -> None:
    count = count_of(config)
    assert count is not None
    write_parts(count(batch.texts for batch in drawn(group.read(), *sample)), work / group.name, parts)


def _longest(tokenizer: Tokenizer, config: TrainConfig) -> list[str]:
    """The longest learned tokens as text; what is no whole character shows as the replacement character."""
    named = set(NAMED) | set(byte_entries())
    vocabulary = {name: i for name, i in tokenizer.get_vocab(with_added_tokens=False).items() if name not in named}
    tokens = sorted(vocabulary, key=lambda token: (-len(token), vocabulary[token]))[:LONGEST_SHOWN]
    if config.algorithm not in ("bpe", "bytes"):
        return tokens
    byte_of = bytes_of_characters()
    return [bytes(byte_of[c] for c in token).decode(errors="replace") for token in tokens]
