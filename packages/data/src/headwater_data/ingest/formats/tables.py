"""Records in tables: JSON lines, Parquet, CSV. The text lies in the source's `text_field`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ..records import Malformed, Raw, Record
from .context import Context, bounded_lines
from .sniff import delimiter_of

CARRIED = ("url", "title", "date", "timestamp", "author", "language", "score", "snapshot", "dump", "subreddit")
"""Fields that go to a document's meta, `url` to its address."""


def from_fields(key: str, fields: dict, context: Context) -> Record:
    """A document from a record's fields."""
    name = context.source.get("text_field") or "text"
    text = fields.get(name)
    if not isinstance(text, str):
        have = ", ".join(map(str, list(fields)[:8]))
        return Malformed(key, "no_text_field", f"{name} is {type(text).__name__}; there are {have}"[:300])
    carried = {f: fields[f] for f in CARRIED if isinstance(fields.get(f), str | int | float) and f != "url"}
    url = fields.get("url")
    return Raw(key, text, url if isinstance(url, str) else "", carried)


def read_jsonl(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """JSON lines; a line that is none, or longer than `max_line_bytes`, is set aside."""
    for number, line in bounded_lines(stream, context.config.max_line_bytes):
        yield from json_line(f"{key}#{number:06d}", line, context)


def json_line(name: str, line: bytes | None, context: Context) -> Iterator[Record]:
    """The record of one line, None: too long; nothing for an empty one."""
    if line is None:
        yield Malformed(name, "line_too_long", f"more than {context.config.max_line_bytes} bytes")
    elif line.strip():
        try:
            fields = orjson.loads(line)
        except ValueError as e:
            yield Malformed(name, "not_a_json_record", str(e)[:200], line[:1000].decode("utf-8", "replace"))
            return
        if isinstance(fields, dict):
            yield from_fields(name, fields, context)
        else:
            yield Malformed(name, "not_a_json_record", type(fields).__name__)


def read_parquet(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """Parquet, a batch at a time."""
    try:
        file = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    except (pa.ArrowException, OSError) as e:
        yield Malformed(key, "broken_parquet", str(e).splitlines()[0][:200])
        return
    for group in range(file.num_row_groups):
        yield from parquet_group(file, group, key, context)


def parquet_group(file: pq.ParquetFile, group: int, key: str, context: Context) -> Iterator[Record]:
    """The documents of one row group."""
    name = context.source.get("text_field") or "text"
    columns = [c for c in file.schema_arrow.names if c == name or c in CARRIED]
    try:
        number = 0
        for batch in file.iter_batches(500, row_groups=[group], columns=columns or None):
            for fields in batch.to_pylist():
                yield from_fields(f"{key}#{group:04d}.{number:06d}", fields, context)
                number += 1
    except (pa.ArrowException, OSError) as e:
        yield Malformed(f"{key}#{group:04d}", "broken_parquet", str(e).splitlines()[0][:200])


def read_csv(stream: IO[bytes], key: str, context: Context) -> Iterator[Record]:
    """CSV or TSV with a header line."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")  # type: ignore[type-var]
    first = text.readline(context.config.max_line_bytes)
    delimiter = delimiter_of([first, ""]) or max("\t,;", key=first.count)
    fields = next(csv.reader([first], delimiter=delimiter), [])
    rows = csv.DictReader(text, fieldnames=fields, delimiter=delimiter)
    csv.field_size_limit(context.config.max_line_bytes)
    number = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as e:
            yield Malformed(f"{key}#{number:06d}", "broken_csv", str(e)[:200])
            return
        yield from_fields(f"{key}#{number:06d}", row, context)
        number += 1
