"""Command `convert`: rows in any public format, written in another; what cannot be is set aside and counted.

The format of the input is each row's own affair; rows of several formats may stand in one file.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import jsonl
from ._contracts.errors import UsageError, UserError
from .conversation import BadRow, identity
from .formats import WRITABLE, Format
from .preference import record
from .readers import PAYLOAD_SUFFIXES, read, values

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass
class Counts:
    """What became of the rows."""

    read: int = 0
    """Rows of the input."""
    records: int = 0
    """Demonstrations or comparisons in them that could be written."""
    written: int = 0
    """Rows of the output: more than the records where a ranking becomes pairs."""
    rejects: list[dict] = field(default_factory=list)
    """{"file", "row", "reason"}; a row counts from 0."""


def run(args: argparse.Namespace) -> None:
    """Convert, and print the counts."""
    to = WRITABLE[args.to]
    counts = convert(args.inputs, to, args.out, args.best)
    print(f"{counts.read} rows read, {counts.records} {to.holds} in {counts.written} rows of {to.name}: {args.out}")
    for reason, number in Counter(reject["reason"] for reject in counts.rejects).most_common():
        print(f"{number} set aside: {reason}")
    if counts.rejects:
        print(f"each of them: {rejects_path(args.out)}")
    if to.loses:
        print(f"{to.name}: {to.loses}")


def convert(files: Sequence[Path], to: Format, out: Path, best: bool = False) -> Counts:
    """Write every record of the files in format `to`, whole or not at all; rejects beside, also if there are none.

    Args:
        files: JSONL (also .jsonl.gz), JSON, Parquet or YAML.
        out: ends in .jsonl, .json or .parquet, which decides how it is written.
        best: take a comparison's best answer as a demonstration (`best_answer`); `to` holds demonstrations.

    Raises:
        UsageError: `best` where `to` holds comparisons; a name that ends otherwise, a folder, a file that is not
            there, an input as output.
        UserError: not one row could be written.
    """
    if best and to.holds == "comparisons":
        raise UsageError(f"--best: makes demonstrations, and {to.name} holds comparisons; leave it out")
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {out}: end its name in {', '.join(SUFFIXES)}")
    for path in files:
        if path.is_dir():
            raise UsageError(f"--from {path}: a folder; name files in it, such as train.jsonl")
        if not path.is_file():
            raise UsageError(f"--from {path}: no such file")
        if not path.name.endswith(PAYLOAD_SUFFIXES):
            raise UsageError(f"--from {path}: none of {', '.join(PAYLOAD_SUFFIXES)}")
        if out.exists() and path.samefile(out):
            raise UsageError(f"--out {out}: would overwrite an input; name another file")
    counts = Counts()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write(beside, out.suffix, _converted(files, to, counts, best))
        jsonl.write(rejects_path(out), counts.rejects)
        if not counts.written:
            common = Counter(reject["reason"] for reject in counts.rejects).most_common(1)
            why = f"; most often: {common[0][0]}" if common else ""
            raise UserError(f"none of {counts.read} rows could be written as {to.name}{why}")
        os.replace(beside, out)
    finally:
        beside.unlink(missing_ok=True)
    return counts


def rejects_path(out: Path) -> Path:
    """Where the rejects of an output lie."""
    return out.with_name(f"{out.stem}.rejects.jsonl")


def _converted(files: Sequence[Path], to: Format, counts: Counts, best: bool) -> Iterator[dict]:
    for path in files:
        for number, value in enumerate(values(path)):
            counts.read += 1
            try:
                holds, parts = read(value)
                if best and holds == "comparisons":
                    holds, parts = "demonstrations", [best_answer(part) for part in parts]
                if holds != to.holds:
                    raise BadRow(f"one of {holds}, and {to.name} holds {to.holds}")
            except BadRow as e:
                parts = [e]
            for part in parts:
                try:
                    made = rows_of(part, to, path.name.partition(".")[0])
                    counts.records += 1
                    counts.written += len(made)
                    yield from made
                except BadRow as e:
                    counts.rejects.append({"file": path.name, "row": number, "reason": str(e)})


def best_answer(part: dict | BadRow) -> dict | BadRow:
    """A comparison's prompt with its answer of rank 1, the first of several, as a demonstration; a BadRow as it is.

    HH-RLHF has no demonstrations and no SFT model; the authors of DPO made theirs from its preferred answers
    (Rafailov et al. 2023, arXiv:2305.18290, section 6).
    """
    if isinstance(part, BadRow):
        return part
    answer = part["responses"][part["ranks"].index(1)]
    about = {key: part[key] for key in ("source", "licence", "split") if key in part}
    return {"messages": [*part["prompt"], {"role": "assistant", "content": answer}], **about}


def rows_of(part: dict | BadRow, to: Format, source: str) -> list[dict]:
    """The rows of one demonstration or comparison; `source` is its name where the row does not say one.

    Raises:
        BadRow: `part` itself, or the format cannot hold it.
    """
    if isinstance(part, BadRow):
        raise part
    assert to.write is not None  # it is of WRITABLE
    source, licence = part.get("source", source), part.get("licence", "unknown")
    if to.holds == "comparisons":
        return to.write(record(part, source, licence))
    about = {"id": identity(part["messages"]), "source": source, "licence": licence}
    return to.write({**part, **about})


def _write(path: Path, suffix: str, rows: Iterator[dict]) -> None:
    if suffix == ".jsonl":
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.writelines(jsonl.lines(rows))
    elif suffix == ".json":
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write("[")
            for i, row in enumerate(rows):
                f.write((",\n" if i else "\n") + json.dumps(row, ensure_ascii=False))
            f.write("\n]\n")
    else:
        _write_parquet(path, list(rows))


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows at once: only together do they show the type of a column that is empty in the first thousand."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        parquet.write_table(pyarrow.Table.from_pylist(_same_keys(rows)), path, compression="zstd")
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, UnicodeEncodeError):
        raise UserError("these rows do not fit the columns of a Parquet file; write .jsonl or .json") from None


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arrow takes the columns from the first row, so that it must have all of them."""
    if not rows:
        return rows
    keys = dict.fromkeys(key for row in rows for key in row)
    return [dict.fromkeys(keys) | rows[0], *rows[1:]]
