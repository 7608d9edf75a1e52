"""From files to rows, and from a row in any public format (formats/) to our records.

The files are those of a sources artefact or any that a person names: JSONL (also gzipped), JSON, Parquet, YAML.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ._contracts.errors import UserError
from .conversation import BadRow
from .formats import Holds, docstrings, recognise

PAYLOAD_SUFFIXES = (".jsonl", ".json", ".yml", ".yaml", ".parquet", ".jsonl.gz")


@dataclass(frozen=True)
class Source:
    """One folder of a sources artefact."""

    name: str
    role: str
    licence: str
    folder: Path


@dataclass(frozen=True)
class Row:
    """One record of a source's payload, still in its own format."""

    source: Source
    number: int
    """Position in the source, from 0, over its files in order of name."""
    value: Any


def sources_with_role(artefact: Path, role: str, names: tuple[str, ...] = ()) -> list[Source]:
    """The sources of a role, or those named whatever their role, in order of name.

    Raises:
        UserError: a named source is not there, or no source has the role.
    """
    found = []
    for path in sorted(artefact.glob("*/source.json")):
        about = json.loads(path.read_text())
        found.append(Source(about["name"], about["role"], about["licence"], path.parent))
    missing = sorted(set(names) - {s.name for s in found})
    if missing:
        have = ", ".join(s.name for s in found)
        raise UserError(f"no source {missing[0]} in {artefact}; it holds {have}: correct `sources` or collect it")
    chosen = [s for s in found if (s.name in names if names else s.role == role)]
    if not chosen:
        raise UserError(f"{artefact} holds no source of role {role}; collect one, or name sources with `sources`")
    return chosen


def rows(source: Source) -> Iterator[Row]:
    """Every record of a source; a line or file that cannot be parsed comes as a BadRow in `value`."""
    files = [
        p for p in sorted(source.folder.rglob("*")) if p.name.endswith(PAYLOAD_SUFFIXES) and p.name != "source.json"
    ]
    if not files:
        raise UserError(f"source {source.name} holds no file of {', '.join(PAYLOAD_SUFFIXES)}; mend its `include`")
    number = 0
    for path in files:
        for value in values(path):
            yield Row(source, number, value)
            number += 1


def values(path: Path) -> Iterator[Any]:
    """Every record of one file, in the format it is in; one that cannot be parsed comes as a BadRow.

    Raises:
        UserError: a Parquet or gzip file that is none.
    """
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _jsonl(path)
    elif path.suffix == ".json":
        value = _parsed(json.loads, path.read_text("utf-8", errors="replace"))
        yield from value if isinstance(value, list) else [value]
    else:
        yield from _unpack({"text": path.read_text("utf-8", errors="replace"), "path": path.name})


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid:
        raise UserError(f"{path.name} is no Parquet file, or a damaged one; fetch it again") from None


def _jsonl(path: Path) -> Iterator[Any]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip():
                    yield from _unpack(_parsed(json.loads, line))
    except (gzip.BadGzipFile, EOFError):
        raise UserError(f"{path.name} is no gzip file, or a damaged one; fetch it again") from None


def _unpack(value: Any) -> Iterator[Any]:
    """A line of a packed tree is {"path", "text"}: a YAML member holds a ChatterBot corpus of many conversations."""
    if not (
        isinstance(value, dict) and {"path", "text"} <= set(value) and str(value["path"]).endswith((".yml", ".yaml"))
    ):
        yield value
        return
    loaded = _parsed(lambda text: yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), value["text"])
    talks = loaded.get("conversations") if isinstance(loaded, dict) else None
    if not isinstance(talks, list):
        yield loaded if isinstance(loaded, BadRow) else BadRow("a YAML file without a list `conversations`")
        return
    for talk in talks:
        yield {"turns": talk}


def _parsed(parser: Any, text: str) -> Any:
    try:
        return parser(text)
    except (ValueError, yaml.YAMLError, RecursionError):
        return BadRow("not parseable")


def read(value: Any, holds: Holds | None = None, phrasings: int = 1) -> tuple[Holds, list[dict | BadRow]]:
    """What a row holds, and its demonstrations or comparisons; one that cannot be used stands there as a BadRow.

    Args:
        value: a row in any of the formats.
        holds: what is looked for; None takes both.
        phrasings: questions made from one docstring (1 to 6).

    Returns:
        Demonstrations have `messages`, and comparisons the keys of preference.CONTENT; both may have `source`,
        `licence` and `split` ("train" or "heldout"), demonstrations `task` and `cluster`, where the row says them.

    Raises:
        BadRow: with the reason why none of the row can be used.
    """
    format, row = recognise(value, holds)
    if format is docstrings.FORMAT:
        return format.holds, docstrings.read(row, phrasings)
    return format.holds, format.read(row)


def demonstrations(value: Any, phrasings: int = 1) -> list[dict]:
    """The demonstrations of one row, one, or `phrasings` for a docstring: `messages`, and what the row says of itself.

    Raises:
        BadRow: with the reason.
    """
    made = []
    for part in read(value, "demonstrations", phrasings)[1]:
        if isinstance(part, BadRow):
            raise part
        made.append(part)
    return made
