"""Do tokens end where morphemes end? Boundaries inside words against those of a dictionary.

The measure is boundary precision and recall over all words, as segmenters of words are scored. As in MorphScore (Arnett
and Bergen 2025; extended in Arnett, Hudspeth and O'Connor 2025, arXiv 2507.06378) a word that is one token is set
aside, so that a large vocabulary is not blamed for words that it need not cut.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.compare.hunspell import Dictionary, draw, parse_affixes
from headwater_tokenizer.compare.subject import Subject
from headwater_tokenizer.sources import list_files, read_file

Words = dict[str, tuple[str, ...]]
"""Word -> morphemes that make it up."""


def agreement(subject: Subject, words: Words) -> dict:
    """How a tokenizer's boundaries inside words agree with the morphemes'.

    Each word is written after a blank, and only boundaries inside it count; one inside a character is no morpheme's.

    Returns:
        words: those in two tokens or more; uncut: the others; precision: share of the tokens' boundaries in the former
        that are morphemes'; recall: share of the morphemes' that are tokens'; f1: their harmonic mean.
    """
    texts = [f" {word}" for word in words]
    spans = subject.encode(texts)
    begins = np.cumsum([0, *(len(text.encode()) for text in texts)])
    of_word = np.repeat(np.arange(len(texts)), spans.counts)
    inside = (spans.starts > begins[of_word] + 1) & (spans.starts < spans.ends)
    token_cuts, cut_words = np.unique(spans.starts[inside]), np.unique(of_word[inside])
    known = [
        begins[i] + 1 + at
        for i, morphemes in enumerate(words.values())
        for at in np.cumsum([len(morpheme.encode()) for morpheme in morphemes])[:-1]
    ]
    known_cuts = np.array(known, np.int64)
    known_cuts = known_cuts[np.isin(np.searchsorted(begins, known_cuts, side="right") - 1, cut_words)]
    hits = len(np.intersect1d(token_cuts, known_cuts))
    return {
        "words": len(cut_words),
        "uncut": len(texts) - len(cut_words),
        "precision": hits / len(token_cuts) if len(token_cuts) else 0.0,
        "recall": hits / len(known_cuts) if len(known_cuts) else 0.0,
        "f1": 2 * hits / (len(token_cuts) + len(known_cuts)) if hits else 0.0,
    }


def read_words(sources: Path, source: str, most: int, seed: int) -> Words:
    """Segmented words of a source: of its hunspell dictionary, or of its .tsv file.

    Raises:
        UserError: there is no such source, none or several of them in it, or no word whose boundaries are known.
    """
    names = list_files(sources, source)
    stems = [name[:-4] for name in names if name.endswith(".dic") and f"{name[:-4]}.aff" in names]
    contents = {tuple(read_file(sources, source, stem + end) for end in (".dic", ".aff")) for stem in stems}
    stems = stems[:1] if len(contents) == 1 else stems  # one dictionary under the names of several countries
    tables = [name for name in names if name.endswith(".tsv")]
    if len(stems) + len(tables) != 1:
        found = ", ".join([*stems, *tables][:5]) or "none"
        raise UserError(f"{sources / source}: one dictionary (.dic and .aff) or one .tsv is needed, but it has {found}")
    if tables:
        words = parse_table(read_file(sources, source, tables[0]), f"{source}/{tables[0]}")
        words = {word: words[word] for word in sorted(words)[:: -(-len(words) // most) or 1]}
    else:
        affixes = parse_affixes(read_file(sources, source, f"{stems[0]}.aff"), f"{source}/{stems[0]}.aff")
        words = draw(Dictionary(read_file(sources, source, f"{stems[0]}.dic"), affixes), most, seed)
    if not words:
        raise UserError(f"{sources / source}: no word in it has a boundary that it says; leave the language out")
    return words


def parse_table(data: bytes, where: str = "") -> Words:
    """`WORD TAB MORPHEMES`, a blank between morphemes, a word a line.

    Raises:
        UserError: a line whose morphemes do not make up its word, or that is not UTF-8.
    """
    words: Words = {}
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            word, _, written = line.decode().partition("\t")
        except UnicodeDecodeError:
            raise UserError(f"{where} line {number}: not UTF-8; convert the file") from None
        morphemes = tuple(written.split(" "))
        if "".join(morphemes) != word or not all(morphemes):
            raise UserError(f"{where} line {number}: not a word, a tab and the morphemes that make it up with blanks")
        if len(morphemes) > 1:
            words[word] = morphemes
    return words
