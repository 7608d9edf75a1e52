"""How a tokenizer cuts a text, by source and language: counted batch by batch, in bounded memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc
from numba import njit

from headwater_tokenizer.classes import SPACE, class_table
from headwater_tokenizer.compare.subject import Subject
from headwater_tokenizer.corpus import Batch
from headwater_tokenizer.encoder import buffers
from headwater_tokenizer.measure import Counts
from headwater_tokenizer.pieces import decode

ALPHA = 2.5
"""Order of the Rényi entropy that agreed best with translation quality (Zouhar et al. 2023, arXiv 2306.16842)."""
UNNAMED = "unknown"
"""A language that the corpus does not say."""


class Tally:
    """Totals over some documents.

    Attributes:
        documents, bytes, characters, words, continued, single: words are runs without white space; `continued` are in
            two tokens or more; `single` have two characters or more, none of which shares its token with another.
        occurrences: (vocab_size,) int64, how often each id occurred.
    """

    def __init__(self, vocab_size: int):
        self.documents = self.bytes = self.characters = self.words = self.continued = self.single = 0
        self.occurrences = np.zeros(vocab_size, np.int64)

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def figures(self, subject: Subject) -> dict:
        """The totals, and

        - bytes_per_token, characters_per_token, tokens_per_word (fertility),
        - continued_words_share (Rust et al. 2021, arXiv 2012.15613, section 3), single_character_words_share: of words,
        - unknown_share, byte_share: of tokens that are the unknown one; a fallback byte, or one of a character's bytes,
        - vocabulary_used_share: of the learned entries those that occur,
        - renyi_efficiency: `renyi_efficiency` of the occurrences.
        """
        tokens = int(self.occurrences.sum())
        unknown = subject.encoder.unknown
        return Counts(self.documents, self.bytes, self.words, tokens).figures() | {
            "characters": self.characters,
            "characters_per_token": _share(self.characters, tokens),
            "unknown_share": _share(0 if unknown is None else int(self.occurrences[unknown]), tokens),
            "byte_share": _share(int(self.occurrences[subject.byte_ids].sum()), tokens),
            "continued_words_share": _share(self.continued, self.words),
            "single_character_words_share": _share(self.single, self.words),
            "vocabulary_used_share": _share(int((self.occurrences[subject.learned] > 0).sum()), len(subject.learned)),
            "renyi_efficiency": renyi_efficiency(self.occurrences),
        }


def tally(subject: Subject, batches: Iterable[Batch]) -> tuple[dict[tuple[str, str], Tally], int]:
    """Encode documents and count.

    Returns:
        Totals by (source, language), and how many documents did not decode to their (normalised) text.
    """
    totals: dict[tuple[str, str], Tally] = defaultdict(lambda: Tally(subject.encoder.vocab_size))
    lost = 0
    for batch in batches:
        if not batch.ids:
            continue
        spans = subject.spans(batch.texts)
        data, offsets = buffers(batch.texts)
        words = count_words(data, offsets, spans.starts, spans.ends, spans.counts, class_table())
        characters = pc.utf8_length(batch.texts).to_numpy(zero_copy_only=False)
        groups = list(zip(batch.sources, (lang or UNNAMED for lang in batch.langs), strict=True))
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        which = np.array([numbers[group] for group in groups], np.int64)
        of_token = np.repeat(which, spans.counts)
        for group, number in numbers.items():
            mine, total = which == number, totals[group]
            total.documents += int(mine.sum())
            total.bytes += int(np.diff(offsets)[mine].sum())
            total.characters += int(characters[mine].sum())
            for name, count in zip(("words", "continued", "single"), words[mine].sum(axis=0).tolist(), strict=True):
                setattr(total, name, getattr(total, name) + count)
            total.occurrences += np.bincount(spans.ids[of_token == number], minlength=len(total.occurrences))
        decoded = subject.encoder.decode_column(spans.ids, spans.counts).to_pylist()
        lost += sum(not _survives(subject, *pair) for pair in zip(batch.texts.to_pylist(), decoded, strict=True))
    return dict(totals), lost


def _survives(subject: Subject, text: str, decoded: str) -> bool:
    return decoded == text or decoded == subject.normalized(text)


def summed(totals: dict[tuple[str, str], Tally], part: int, vocab_size: int) -> dict[str, Tally]:
    """Totals by source (part 0) or language (1), names in order."""
    whole: dict[str, Tally] = defaultdict(lambda: Tally(vocab_size))
    for group, counts in totals.items():
        whole[group[part]].add(counts)
    return {name: whole[name] for name in sorted(whole)}


def renyi_efficiency(occurrences: np.ndarray, alpha: float = ALPHA) -> float:
    """Rényi entropy of the tokens' frequencies over its most, log of the number of different tokens that occur, as the
    authors' package tokenization-scorer has it: 1 where all are equally frequent. 0 where there are fewer than two.

    Zouhar et al. 2023, Tokenization and the Noiseless Channel, arXiv 2306.16842.

    Args:
        occurrences: (entries,) counts.
        alpha: the order, not 1.
    """
    found = occurrences[occurrences > 0] / max(int(occurrences.sum()), 1)
    if len(found) < 2:
        return 0.0
    return float(np.log((found**alpha).sum()) / (1 - alpha) / np.log(len(found)))


@njit(cache=True, nogil=True)
def count_words(data, offsets, starts, ends, counts, classes):
    """How the words of each text are cut.

    Args:
        data, offsets: UTF-8 bytes, (bytes,) uint8, and where the texts begin in them, (texts + 1,) int64.
        starts, ends: (tokens,) int64 bytes of each token, texts end to end, starts ascending in a text.
        counts: (texts,) int64 tokens of each.

    Returns:
        (texts, 3) int64: words; those in two tokens or more; those of two characters or more that are cut so that no
        token has a part of two of them.
    """
    found = np.zeros((len(offsets) - 1, 3), np.int64)
    token = 0
    for text in range(len(offsets) - 1):
        last, i, end = token + counts[text], offsets[text], offsets[text + 1]
        while i < end:
            point, size = decode(data, i)
            if classes[point] & SPACE:
                i += size
                continue
            word, characters = i, 0
            while i < end:
                point, size = decode(data, i)
                if classes[point] & SPACE:
                    break
                i += size
                characters += 1
            while token < last and ends[token] <= word:
                token += 1
            touched, apart, at = 0, True, token
            while at < last and starts[at] < i:
                begin, stop = max(starts[at], word), min(ends[at], i)
                if begin < stop:
                    touched += 1
                    for k in range(begin + 1, stop):
                        if data[k] & 0xC0 != 0x80:
                            apart = False
                at += 1
            found[text, 0] += 1
            found[text, 1] += touched > 1
            found[text, 2] += characters > 1 and touched > 0 and apart
        token = last
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
