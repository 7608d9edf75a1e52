"""Readers: the files of one source to raw documents, or to a reason why a record can't be read.

A reader is a generator over one shard, that is the records `start` to `stop` of a source. It never raises for a
malformed record: that is yielded as `Malformed`, and its neighbours go on.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import yaml

from ..config import ExtractConfig
from .files import context_of
from .formats.books import plain_markdown
from .formats.context import whole_text
from .formats.web import warc_pages
from .pack import TAR, WARC
from .records import Malformed, Raw, Record


@dataclass(frozen=True)
class Slice:
    """One shard of a source: records start <= i < stop."""

    folder: Path
    source: dict
    """The source's source.json."""
    start: int
    stop: int
    config: ExtractConfig


def read_html(shard: Slice) -> Iterator[Record]:
    """Main text of the HTML responses of a WARC file that collect packed."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    reached = shard.start

    def wanted(records: ArchiveIterator) -> Iterator[tuple[str, object]]:
        nonlocal reached
        for position, record in enumerate(islice(records, shard.stop)):
            if position >= shard.start:
                reached = position + 1
                yield f"{position:06d}", record

    with open(shard.folder / WARC, "rb") as f:
        records = ArchiveIterator(f, record_types=WarcRecordType.response, parse_http=False)
        whole = yield from warc_pages(wanted(records), WARC, context_of(shard.source, shard.config))
    missing = min(shard.stop, shard.source["records"]) - reached
    if whole and missing > 0:  # FastWARC takes a cut in the middle of a record for the end
        yield Malformed(f"record-{reached}", "truncated_warc", f"{missing} records are missing")


def read_text(shard: Slice) -> Iterator[Record]:
    """Plain text files, one work a file."""
    for path, data in _tar_slice(shard):
        text = whole_text(data)
        yield (
            Raw(path, text, _url(shard, path))
            if text is not None
            else Malformed(path, "not_utf8", f"{len(data)} bytes")
        )


def read_markdown(shard: Slice) -> Iterator[Record]:
    """Markdown files; links keep their words and lose their targets, rules go, the rest stays as written."""
    for record in read_text(shard):
        if isinstance(record, Raw):
            record = Raw(record.key, plain_markdown(record.text), record.url, record.meta)
        yield record


def read_code(shard: Slice) -> Iterator[Record]:
    """Source files, one document a file, never split."""
    for record in read_text(shard):
        if isinstance(record, Raw):
            record = Raw(record.key, record.text, record.url, {"path": record.key, "whole": True})
        yield record


def read_dialogue(shard: Slice) -> Iterator[Record]:
    """YAML conversations (`conversations:` a list of lists of turns), one document a file, turns as lines."""
    for path, data in _tar_slice(shard):
        try:
            content = yaml.load(data, Loader=yaml.CSafeLoader)
            conversations = content["conversations"]
        except (yaml.YAMLError, UnicodeError, TypeError, KeyError) as e:
            yield Malformed(path, "not_a_dialogue", type(e).__name__)
            continue
        texts: list[str] = []
        bad = 0
        for turns in conversations:
            lines = [str(turn).strip() for turn in turns] if isinstance(turns, list) else []
            if len(lines) < 2 or not all(lines):
                bad += 1
                yield Malformed(f"{path}#{len(texts) + bad}", "not_a_dialogue", "fewer than two turns")
                continue
            texts.append("\n".join(f"- {line}" for line in lines))
        yield Raw(path, "\n\n".join(texts), _url(shard, path), {"conversations": len(texts)})


_DICT_DIGITS = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_DICT_TAGS = re.compile(r"^\s*\[(?:1913 Webster|Webster 1913 Suppl\.|PJC|WordNet 1\.5|.{0,12}\+PJC)\]\s*$", re.M)


def read_dictd(shard: Slice) -> Iterator[Record]:
    """dictd databases (`NAME.index`, `NAME.dict.dz`): consecutive entries together, as one document each group.

    The index (RFC 2229's reference server: headword, offset and length in base 64) says where an entry lies; several
    headwords may share one. Groups are cut at `entry_group_characters`; a record of the source is a file.
    """
    limit = shard.config.entry_group_characters
    for index in sorted(shard.folder.rglob("*.index")):
        name = index.stem
        try:
            data = gzip.decompress((index.parent / f"{name}.dict.dz").read_bytes())
        except (OSError, EOFError, zlib.error) as e:
            yield Malformed(name, "unreadable_dictionary", type(e).__name__)
            continue
        group: list[str] = []
        size = first = 0
        for number, (start, length) in enumerate(_dict_entries(index, len(data))):
            text = data[start : start + length].decode("utf-8", "replace")
            text = _DICT_TAGS.sub("", text).strip()
            if size + len(text) > limit and group:
                yield Raw(f"{name}#{first:06d}", "\n\n".join(group), "", {"entries": len(group)})
                group, size, first = [], 0, number
            group.append(text)
            size += len(text)
        if group:
            yield Raw(f"{name}#{first:06d}", "\n\n".join(group), "", {"entries": len(group)})


def _dict_entries(index: Path, size: int) -> list[tuple[int, int]]:
    """(offset, length) of each distinct entry, in the order of the file; headers (00-database-...) left out."""
    found = set()
    for line in index.read_text("utf-8", "replace").splitlines():
        fields = line.split("\t")
        if len(fields) < 3 or fields[0].startswith("00-database") or fields[0].startswith("00database"):
            continue
        try:
            start, length = (_base64_number(f) for f in fields[1:3])
        except KeyError:
            continue
        if start + length <= size:
            found.add((start, length))
    return sorted(found)


def _base64_number(digits: str) -> int:
    value = 0
    for c in digits:
        value = value * 64 + _DICT_DIGITS[c]
    return value


_R_STRING = re.compile(rb"\x00[\x00\x04\x08]\x00\x09(....)", re.S)


def read_r_text(shard: Slice) -> Iterator[Record]:
    """Character vectors of an R package's lazy-load database (`*.rdb`): each vector one work, elements as lines.

    The file is a sequence of [4-byte big-endian length][zlib stream of R's XDR serialisation]; strings are CHARSXP
    records (type 9 with encoding flags, then a length).
    """
    for path in sorted(shard.folder.rglob("*.rdb")):
        data, offset, number = path.read_bytes(), 0, 0
        while offset + 4 <= len(data):
            unpacker = zlib.decompressobj()
            try:
                blob = unpacker.decompress(data[offset + 4 :])
            except zlib.error:
                yield Malformed(f"{path.name}#{number}", "unreadable_r_data", f"at byte {offset}")
                break
            offset = len(data) - len(unpacker.unused_data)
            lines = _r_strings(blob)
            if len(lines) > 100:  # the package's other objects (names, attributes) are short vectors
                yield Raw(f"{path.name}#{number}", "\n".join(lines))
            number += 1


def _r_strings(blob: bytes) -> list[str]:
    lines, at = [], 0
    while found := _R_STRING.search(blob, at):
        (length,) = struct.unpack(">i", found[1])
        end = found.end() + max(length, 0)
        if 0 <= length <= len(blob) - found.end():
            lines.append(blob[found.end() : end].decode("utf-8", "replace"))
            at = end
        else:
            at = found.start() + 1
    return lines


def read_jsonl(shard: Slice) -> Iterator[Record]:
    """JSON lines; the text lies in the source's `text_field`."""
    name = shard.source["text_field"]
    for key, line in _lines(shard):
        try:
            text = json.loads(line)[name]
        except (ValueError, KeyError, TypeError) as e:
            yield Malformed(key, "not_a_json_record", type(e).__name__, line[:1000])
            continue
        yield Raw(key, text) if isinstance(text, str) else Malformed(key, "not_a_json_record", type(text).__name__)


def read_lines(shard: Slice) -> Iterator[Record]:
    """Plain text, one document a line."""
    for key, line in _lines(shard):
        yield Raw(key, line)


def _lines(shard: Slice) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in shard.folder.rglob("*") if p.is_file() and p.name != "source.json"):
        with open(path, encoding="utf-8", errors="replace", newline="\n") as f:
            for number, line in enumerate(f):
                if line.strip():
                    yield f"{path.relative_to(shard.folder).as_posix()}#{number:06d}", line.rstrip("\r\n")


def _tar_slice(shard: Slice) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(shard.folder / TAR, "r|gz") as archive:
        for info in islice(archive, shard.start, shard.stop):
            content = archive.extractfile(info)
            if content is not None:
                yield info.name, content.read()


def _url(shard: Slice, path: str) -> str:
    return shard.source.get("base_url", "") + quote(path)


READERS: dict[str, Callable[[Slice], Iterator[Record]]] = {
    "html": read_html,
    "text": read_text,
    "markdown": read_markdown,
    "code": read_code,
    "dialogue": read_dialogue,
    "dictd": read_dictd,
    "r-text": read_r_text,
    "jsonl": read_jsonl,
    "lines": read_lines,
}
SLICED = frozenset({"html", "text", "markdown", "code", "dialogue"})
"""Readers that can start in the middle of their source; the others take it whole, as one shard."""
