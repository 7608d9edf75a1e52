"""Word lists of harmful language, by language, and any classifier of it.

The lists come as a source of role `wordlists` (LDNOOBW's 28 languages, as npm's naughty-words carries them): one file a
language, named by its code, JSON or a word a line. Languages that part words by blanks are matched by whole words,
phrases included; the others by characters. A word on a list is a sign and not a verdict: the lists hold medical terms,
and names of groups of people that are used in self-description (Dodge et al. 2021, arXiv 2104.08758, section 5).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl

from .._contracts.errors import UsageError
from ..documents import read_json
from ..words import ngram_hashes, word_stream

UNSPACED = frozenset(("zh", "ja", "th", "ko"))
COLUMNS = ("harm_words", "harm_share", "harm_score")


class WordLists:
    """Words by language."""

    def __init__(self, words: dict[str, list[str]]):
        self.words = {code: sorted({w.strip().lower() for w in found if w.strip()}) for code, found in words.items()}
        self.by_length: dict[str, dict[int, np.ndarray]] = {}
        for code, found in self.words.items():
            if code in UNSPACED:
                continue
            lengths: dict[int, list[str]] = {}
            for w in found:
                n = len(word_stream([w]).hashes)
                if n:
                    lengths.setdefault(n, []).append(w)
            self.by_length[code] = {
                n: np.unique(ngram_hashes(word_stream(ws), n)[0]) for n, ws in sorted(lengths.items())
            }

    def count(self, texts: pl.Series, languages: pl.Series) -> pl.DataFrame:
        """harm_words (f64, occurrences) and harm_share (of the words) of each text; null in a language without list."""
        found = np.full(len(texts), np.nan)
        stream = word_stream(texts)
        lengths = np.diff(stream.starts)
        for code in languages.unique().to_list():
            mine = (languages == code).to_numpy()
            if code in self.by_length:
                found[mine] = 0
                for n, keys in self.by_length[code].items():
                    grams, at = ngram_hashes(stream, n)
                    place = np.minimum(np.searchsorted(keys, grams), len(keys) - 1)
                    text_of = np.searchsorted(stream.starts, at[keys[place] == grams], side="right") - 1
                    found += np.where(mine, np.bincount(text_of, minlength=len(texts)), 0)
            elif code in self.words:
                here = texts.filter(pl.Series(mine)).str.to_lowercase()
                counts = here.to_frame("t").select(pl.col("t").str.extract_many(self.words[code]).list.len())["t"]
                found[mine] = counts.to_numpy()
        values = pl.Series("harm_words", found).fill_nan(None)
        return pl.DataFrame({"harm_words": values, "harm_share": values / np.maximum(lengths, 1)})


def find_wordlists(sources: Path | None) -> WordLists | None:
    """The lists of the sources of role `wordlists`; None where there is none."""
    found: dict[str, list[str]] = {}
    for folder in sorted(sources.iterdir()) if sources is not None else ():
        if not (folder / "source.json").exists() or read_json(folder / "source.json")["role"] != "wordlists":
            continue
        for path in sorted(folder.rglob("*")):
            if path.suffix == ".json" and path.name != "source.json":
                words = json.loads(path.read_text())
                if isinstance(words, list):
                    found.setdefault(path.stem.split("-")[0].lower(), []).extend(map(str, words))
            elif path.suffix == ".txt":
                found.setdefault(path.stem.split("-")[0].lower(), []).extend(path.read_text().splitlines())
    return WordLists(found) if found else None


@cache
def load_classifier(name: str) -> Callable[[list[str]], Sequence[float]]:
    """A function of texts that gives a score between 0 and 1 each, by its `module:function`.

    Raises:
        UsageError: it can't be imported.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as e:
        raise UsageError(f"signals.harm_classifier: {name} can't be imported ({e}); write module:function") from None


def classify(name: str, texts: list[str], by_line: bool) -> list[float]:
    """The classifier's score of each text, or of its worst line."""
    call = load_classifier(name)
    if not by_line:
        return [float(score) for score in call(texts)]
    lines = [[line for line in text.split("\n") if line.strip()] or [""] for text in texts]
    scores = iter(call([line for of_text in lines for line in of_text]))
    return [max(float(next(scores)) for _ in of_text) for of_text in lines]
