"""Unigram (Kudo 2018) and BPE by sentencepiece's trainers, written as models of tokenizers.

`unigram` learns from counted pieces of the split, so its cost grows with distinct pieces; it starts from the substrings
that make up most of the text, by count, where the trainers take those of distinct words, each word once: on 20 MB at
4,096 entries that is 2.99 bytes a token instead of 2.71, in 40% of the time. `sentencepiece-*` learn from lines of the
raw stream. Nothing is normalised, collapsed or prefixed: pieces are the text itself, blanks included.

    trainer's entries -> [256 byte entries] + [learned entries] + unknown

sentencepiece writes a blank as U+2581 and keeps tab, NUL and U+2585 for itself, so these and line ends go in as
private-use characters and come out again. A text that holds one of those stand-ins is not learned from.
"""

from __future__ import annotations

import heapq
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator

import polars as pl
import pyarrow as pa
import sentencepiece
from tokenizers import Tokenizer, models

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import byte_entries
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.special import STARTING_BYTES, UNKNOWN

MOST_CHARACTERS = 16
"""Of a piece: the default of both trainers."""
THREADS = 4
"""Fixed, since the order in which the trainer's threads add their sums shows in the scores."""
LINE = 1 << 14
"""Characters of a line at most; longer ones are cut."""
SEEDS = 6
"""Seeds an entry: bytes a token at 4,096 and 32,768 entries were best with 5 and 6 (twice as many: 0.5% and 1.5% worse,
half as many: 3% and 1%), since what EM has to prune it prunes greedily."""
SEED_PIECES = 1_000_000
"""The commonest pieces, whose substrings are counted; the rest of a large sample hardly weighs."""
NEVER = -1e4
"""Log probability of entries that no text is meant to reach: bytes, unknown. A text that spells one of their names is
cheaper by its characters, which all have entries of their own for that."""
_OF_NAMES = "".join(sorted(set("".join(byte_entries()) + UNKNOWN)))
_BLANK = "\u2581"
_RESERVED = "\t\n\r\0\u2585" + _BLANK
_STAND_INS = "".join(map(chr, range(0xF5D0, 0xF5D0 + len(_RESERVED))))
_IN, _OUT = str.maketrans(_RESERVED, _STAND_INS), str.maketrans(_STAND_INS + _BLANK, _RESERVED + " ")
_UNSAFE = re.compile(f"[{_STAND_INS}]")


def learn_unigram(count: pl.DataFrame, config: TrainConfig) -> Tokenizer:
    """Unigram from the counted pieces of the split.

    Raises:
        UserError: the pieces do not hold enough for the vocabulary.
    """
    common = count.filter(pl.col("count") >= config.min_frequency).sort("piece")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n") as seeds:
        seeds.writelines(f"{seed}\t{times}\n" for seed, times in _seeds(common, SEEDS * config.learned))
        seeds.flush()
        return _unigram(_train(_counted(common), config, "unigram", seeds.name), config)


def learn_raw_unigram(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """Unigram from lines. Raises as `learn_unigram`."""
    return _unigram(_train(_lines(texts), config, "unigram"), config)


def learn_raw_bpe(texts: Iterable[pa.LargeStringArray], config: TrainConfig) -> Tokenizer:
    """BPE over characters from lines. Raises as `learn_unigram`.

    sentencepiece merges whatever neighbours make an entry, the earliest learned first; tokenizers wants the pairs, so
    each entry is given every cut into two entries.
    """
    first = byte_entries() if config.byte_fallback else []
    names = first + [name for name, _ in _train(_lines(texts), config, "bpe")]
    vocabulary = {name: i for i, name in enumerate([*names, UNKNOWN])}
    merges = []
    for name in names[len(first) :]:
        cuts = [(name[:at], name[at:]) for at in range(1, len(name))]
        cuts = [(left, right) for left, right in cuts if left in vocabulary and right in vocabulary]
        merges += sorted(cuts, key=lambda cut: (vocabulary[cut[0]], vocabulary[cut[1]]))
    model = models.BPE(vocabulary, merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=config.byte_fallback)
    return Tokenizer(model)


def _unigram(pieces: list[tuple[str, float]], config: TrainConfig) -> Tokenizer:
    first = byte_entries() if config.byte_fallback else []
    vocabulary = [*((name, NEVER) for name in first), *pieces, (UNKNOWN, NEVER)]
    return Tokenizer(models.Unigram(vocabulary, unk_id=len(vocabulary) - 1, byte_fallback=config.byte_fallback))


def _train(sentences: Iterator[str], config: TrainConfig, kind: str, seeds: str = "") -> list[tuple[str, float]]:
    """Entries and scores in sentencepiece's order, as plain text.

    Args:
        seeds: file of seeds, where the sentences are counted pieces; none: they are lines.
    """
    counted = bool(seeds)
    wanted = config.learned - (STARTING_BYTES if config.byte_fallback else 0)
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences, model_writer=written, model_type=kind, vocab_size=wanted + 1,
            input_format="tsv" if counted else "text", max_sentence_length=8 * LINE, num_threads=THREADS,
            character_coverage=config.coverage, max_sentencepiece_length=MOST_CHARACTERS,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
            allow_whitespace_only_pieces=True, split_by_unicode_script=not counted, split_by_number=not counted,
            split_digits=not counted and config.digits == 1, required_chars=_OF_NAMES,
            seed_sentencepieces_file=seeds,
            unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, OSError) as e:
        raise UserError(_explained(str(e), config, wanted)) from None
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return [(model.id_to_piece(i).translate(_OUT), model.get_score(i)) for i in range(1, model.get_piece_size())]


def _explained(error: str, config: TrainConfig, wanted: int) -> str:
    spare = config.vocab_size - wanted
    if found := re.search(r"too high.*<= (\d+)", error):
        most = int(found[1]) - 1 + spare
        return (
            f"the sample holds too few distinct pieces for vocab_size {config.vocab_size}: set it to at most {most}, "
            "or give more text"
        )
    if found := re.search(r"smaller than required_chars\D*(\d+)\D+(\d+)", error):
        least = int(found[2]) + spare
        return (
            f"vocab_size {config.vocab_size} has no room for the characters that make up {config.coverage:.2%} of the "
            f"sample: set it to at least {least}, or lower coverage"
        )
    return f"sentencepiece cannot learn {wanted} entries: {' '.join(error.split())[-200:]}"


def _counted(count: pl.DataFrame) -> Iterator[str]:
    """`piece TAB count` of each distinct piece."""
    for piece, times in count.iter_rows():
        if not _UNSAFE.search(piece):
            yield f"{piece.translate(_IN)}\t{times}"


def _seeds(count: pl.DataFrame, most: int) -> list[tuple[str, int]]:
    """Substrings of pieces with how often they occur, those first that make up most of the text."""
    found: Counter[str] = Counter()
    commonest = count.sort("count", "piece", descending=[True, False]).head(SEED_PIECES)
    for piece, times in commonest.iter_rows():
        if not _UNSAFE.search(piece):
            text = piece.translate(_IN).replace(" ", _BLANK)
            for start in range(len(text) - 1):
                for end in range(start + 2, min(start + MOST_CHARACTERS, len(text)) + 1):
                    found[text[start:end]] += times
    return heapq.nsmallest(most, found.items(), key=lambda seed: (-seed[1] * len(seed[0]), seed[0]))


def _lines(texts: Iterable[pa.LargeStringArray]) -> Iterator[str]:
    """Lines and, apart from them as splits.RAW cuts, their ends."""
    for batch in texts:
        for text in batch.to_pylist():
            for line in filter(None, re.split(r"(\n+)", text)):
                for at in range(0, len(line), LINE):
                    part = line[at : at + LINE]
                    if not _UNSAFE.search(part):
                        yield part.translate(_IN)
