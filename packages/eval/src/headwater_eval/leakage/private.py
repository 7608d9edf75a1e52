"""Private data in what a model writes, by the detectors that the training text was cleaned with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._contracts.privacy import find_private
from . import corpus

LISTED = 3
"""Ids of training documents named for a value."""


def found_in(
    texts: Sequence[tuple[str, bool, str]], kinds: Sequence[str], region: str, folder: Path
) -> list[dict[str, Any]]:
    """Every private value in some texts, and whether it stands in the training text. The value itself is not told.

    Args:
        texts: (id, whether it is a sample, text).
        kinds, region: see `find_private`.
        folder: the corpus artefact.

    Returns:
        {id, sample, kind, characters, value: a number for each distinct one, times: how often it stands in the training
        text, documents: ids of some that hold it} a value found, in order.
    """
    spans = [
        (id_, sample, kind, value)
        for id_, sample, text in texts
        for _, _, kind, value in find_private(text, kinds, region)
    ]
    values = [value for *_, value in spans]
    stands = corpus.occurrences(folder, values)
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [
        {"id": id_, "sample": sample, "kind": kind, "characters": len(value), "value": numbers[value],
         "times": stands.get(value, (0, []))[0], "documents": stands.get(value, (0, []))[1][:LISTED]}
        for id_, sample, kind, value in spans
    ]  # fmt: skip
