"""Public formats of demonstrations and comparisons: one file each, with a reader and a writer.

A row says by its own keys which format it is in; nothing is guessed from the first row of a file. Each module's `read`
and `write` do what `Format.read` and `Format.write` (format.py) say, and raise BadRow with the reason.
"""

from __future__ import annotations

from typing import Any

from ..conversation import BadRow
from . import (
    alpaca,
    argilla,
    chatterbot,
    completion,
    docstrings,
    flan,
    hh,
    labelstudio,
    openai,
    ranked,
    sharegpt,
    summarize,
    trl,
)
from .format import Format, Holds, Row

# In the order in which a row is tried. A comparison's keys are the more telling ones, so they come first; of two
# transcripts the keys are TRL's, so hh, which looks at how they open, comes before trl.
FORMATS: tuple[Format, ...] = tuple(
    module.FORMAT
    for module in (labelstudio, argilla, summarize, ranked, hh, trl)
    + (docstrings, chatterbot, openai, sharegpt, alpaca, completion, flan)
)
WRITABLE = {f.name: f for holds in ("demonstrations", "comparisons") for f in FORMATS if f.write and f.holds == holds}


def recognise(value: Any, holds: Holds | None = None) -> tuple[Format, Row]:
    """The format of a row, and the row without keys that say nothing (None, as Parquet fills them in).

    Args:
        holds: look only among formats of demonstrations or of comparisons.

    Raises:
        BadRow: it is in none of them, or is no row: `value` may be a BadRow that a parser gave.
    """
    if isinstance(value, BadRow):
        raise value
    if not isinstance(value, dict):
        raise BadRow("not a mapping of keys")
    said = {key: given for key, given in value.items() if given is not None}
    for row in (said, value):
        for format in FORMATS:
            if holds in (None, format.holds) and format.recognises(row):
                return format, row
    raise BadRow("no comparison in a known format" if holds == "comparisons" else "unknown format")
