"""JSON lines: how records lie in artefacts and in the work folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ._contracts.manifest import write_atomic


def lines(rows: Iterable[dict]) -> Iterator[str]:
    """One JSON object a line, text as it is."""
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, rows: Iterable[dict]) -> None:
    """The file whole or not at all; half of a surrogate pair, which UTF-8 can't hold, as JSON's own escape."""
    write_atomic(path, "".join(lines(rows)).encode("utf-8", errors="backslashreplace"))


def read(path: Path) -> list[Any]:
    """What `write` wrote. Lines end with a line feed only: U+2028 and its like, which models do write, end none."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
