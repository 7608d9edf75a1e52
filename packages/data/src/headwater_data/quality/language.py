"""Language identification with fastText's lid.176 (Joulin et al. 2016), from weights that a source carries; what is
measured in a language's own terms."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from .._contracts.errors import UserError
from ..config.quality import language_tables
from ..documents import read_json
from ..words import word_stream


def find_weights(sources: Path | None, name: str = "", besides: str = "") -> Path | None:
    """The fastText model among the sources of role `weights`; None where there is none.

    Args:
        name: of the source; empty: the first one.
        besides: a source that is not meant.
    """
    if sources is None:
        return None
    for folder in sorted(p for p in sources.iterdir() if (p / "source.json").exists()):
        if folder.name == besides or (name and folder.name != name):
            continue
        if read_json(folder / "source.json")["role"] == "weights":
            found = sorted(p for p in folder.rglob("*") if p.suffix in (".ftz", ".bin"))
            if found:
                return found[0]
    return None


T = TypeVar("T")


def once_a_process(load: Callable[[Path], T]) -> Callable[[Path], T]:
    """Keep what a function loads from a file until the file changes: a worker asks again with every block."""

    @cache
    def loaded(path: Path, modified: int) -> T:
        return load(path)

    return wraps(load)(lambda path: loaded(path, path.stat().st_mtime_ns))


@once_a_process
def load_fasttext(path: Path):
    """A fastText model.

    Raises:
        UserError: not a fastText model, or another distribution than fasttext-numpy2-wheel provides the module
            `fasttext` (the others fail with numpy 2).
    """
    try:
        version("fasttext-numpy2-wheel")
    except PackageNotFoundError:
        raise UserError(
            "the module fasttext is not fasttext-numpy2-wheel's: pip uninstall fasttext fasttext-wheel, "
            "then pip install fasttext-numpy2-wheel"
        ) from None
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except ValueError as e:
        raise UserError(f"{path}: no fastText model ({e}); correct the source of role weights") from None


def count_stop_words(texts: pl.Series, languages: pl.Series) -> pl.Series:
    """How many of its language's stop words (languages.yaml) a text holds, f64; null in a language without list."""
    keys = {code: word_stream(words.split()).hashes for code, words in language_tables()["stop_words"].items()}
    rows = np.flatnonzero(languages.is_in(list(keys)).to_numpy())
    stream = word_stream(texts.gather(rows))
    counts: list[float | None] = [None] * len(texts)
    for i, row in enumerate(rows.tolist()):
        words = stream.hashes[stream.starts[i] : stream.starts[i + 1]]
        counts[row] = float(np.isin(keys[languages[row]], words).sum())
    return pl.Series("gopher_stop_words", counts, pl.Float64)


class LanguageIdentifier:
    """Tells a text's language."""

    def __init__(self, weights: Path):
        self.model = load_fasttext(weights)

    def __call__(self, text: str, characters: int) -> tuple[str, float]:
        """(ISO 639 code, probability) from the first `characters` characters; ("und", 0.0) for no words."""
        line = " ".join(text[:characters].split())
        if not line:
            return "und", 0.0
        labels, probabilities = self.model.predict(line)
        return labels[0].removeprefix("__label__"), min(float(probabilities[0]), 1.0)

    def share(self, text: str, label: str, characters: int, windows: int) -> float:
        """Share of a text's windows that are in the language `label`; 1 for a text of one window.

        Args:
            characters: of a window; the windows lie evenly over the text, the first at its start.
            windows: at most.
        """
        count = min(len(text) // characters, windows)
        if count < 2:
            return 1.0
        step = (len(text) - characters) // (count - 1)
        found = [self(text[i * step : i * step + characters], characters)[0] for i in range(1, count)]
        return (1 + found.count(label)) / count
