"""extract: every corpus source to documents.

source -> shards of records -> reader -> tidy -> split long works -> part-N.parquet, rejects/part-N.parquet
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from .._contracts.errors import UserError
from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import ExtractConfig
from ..documents import (
    REJECTS,
    SCHEMA,
    count_folder,
    count_rejects,
    funnel,
    part_name,
    publish_parts,
    read_json,
    write_part,
)  # fmt: skip
from .files import FORMATS, FilePart, plan_files, read_files, sandbox_of
from .readers import READERS, SLICED, Slice
from .records import Malformed, Raw


@dataclass(frozen=True)
class Shard:
    """A slice of a source and the number of the part it becomes."""

    number: int
    records: Slice | FilePart


def extract(run: Run) -> None:
    """The stage: sources -> documents."""
    config: ExtractConfig = run.config
    shards = plan_shards(run.inputs["sources"], config)
    parts = run.work / "parts"
    fan_out(run, "extract", partial(extract_shard, parts), shards, config)
    publish_parts(parts, run.out)
    kept, rejected = count_folder(parts), count_rejects(parts)
    records = {s.records.source["name"]: s.records.source["records"] for s in shards}
    metrics = funnel(kept, kept, [rejected])
    metrics["records"] = sum(records.values())
    metrics["pages"] = {
        s.records.source["name"]: s.records.source["records"] for s in shards if s.records.source["reader"] == "html"
    }
    run.write_metrics(metrics)
    run.log(
        f"{metrics['documents_out']} documents, {metrics['bytes_out'] / 1e6:.1f} MB of text from "
        f"{len(records)} sources; {len(rejected)} records rejected"
    )


def plan_shards(sources: Path, config: ExtractConfig) -> list[Shard]:
    """Cut every corpus source into shards; depends on the sources and the config alone.

    Raises:
        UserError: no source has the role corpus.
    """
    slices: list[Slice | FilePart] = []
    for folder in sorted(p for p in sources.iterdir() if (p / "source.json").exists()):
        source = read_json(folder / "source.json")
        if source["role"] != "corpus":
            continue
        if source["reader"] not in READERS:
            if source["reader"] != "auto" and source["reader"] not in FORMATS:
                known = ", ".join(sorted({"auto", *READERS, *FORMATS}))
                raise UserError(f"source {source['name']}: reader {source['reader']!r} is unknown; use one of {known}")
            slices += plan_files(folder, source, config)
            continue
        step = config.records_per_shard if source["reader"] in SLICED else max(source["records"], 1)
        for start in range(0, max(source["records"], 1), step):
            slices.append(Slice(folder, source, start, start + step, config))
    if not slices:
        raise UserError(f"{sources}: no source has the role corpus; add one to collect's config")
    return [Shard(number, records) for number, records in enumerate(slices)]


def extract_shard(parts: Path, shard: Shard) -> None:
    """Read one shard and write its documents and rejects."""
    config, source = shard.records.config, shard.records.source
    rows: list[dict] = []
    rejects: list[dict] = []

    def reject(key: str, rule: str, detail: str, text: str, value: float | None, threshold: float | None) -> None:
        rejects.append(
            {
                "id": f"{source['name']}/{key}", "stage": "extract", "rule": rule, "value": value,
                "threshold": threshold, "source": source["name"], "text": text,
                "meta": json.dumps({"detail": detail}, ensure_ascii=False),
            }
        )  # fmt: skip

    read = shard.records
    sandbox = sandbox_of(config.page_seconds, config.parser_memory_mb)
    for record in read_files(read) if isinstance(read, FilePart) else READERS[source["reader"]](read):
        key = record.key
        if isinstance(record, Malformed):
            reject(key, record.rule, record.detail, record.text, None, None)
            continue
        text = tidy(record.text)
        if len(text) < config.min_characters:
            reject(key, "empty", "no text after extraction", text, float(len(text)), float(config.min_characters))
            continue
        for suffix, piece in split_work(text, record, source["reader"], config.max_characters):
            rows.append(
                {
                    "id": f"{source['name']}/{key}{suffix}", "text": piece, "source": source["name"],
                    "category": source["category"], "url": record.url,
                    "lang": "" if source["language"] == "mul" else source["language"],
                    "licence": source["licence"],
                    "meta": json.dumps(
                        {k: v for k, v in record.meta.items() if k != "whole"}, ensure_ascii=False, sort_keys=True
                    ),
                }
            )  # fmt: skip
    sandbox.close()  # and waited for: what it cost is counted with this process
    if rejects:
        write_part(parts / "rejects" / part_name(shard.number), pl.DataFrame(rejects, schema=REJECTS))
    write_part(parts / part_name(shard.number), pl.DataFrame(rows, schema=dict.fromkeys(SCHEMA.names, pl.String)))


_BLANKS = re.compile(r"[ \t\x0b\x0c\u00a0]+(?=\n|$)")
_GAPS = re.compile(r"\n{3,}")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


def tidy(text: str) -> str:
    """Line ends to \\n, control characters and blanks at line ends gone, at most one empty line, no outer space."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates can't be stored
    return _GAPS.sub("\n\n", _BLANKS.sub("", _CONTROLS.sub("", text))).strip("\n").rstrip()


def split_work(text: str, record: Raw, reader: str, limit: int) -> Iterator[tuple[str, str]]:
    """(suffix of the id, text) of a work's documents; one document where it is short, code or a web page."""
    if len(text) <= limit or reader == "html" or record.meta.get("whole"):
        yield "", text
        return
    for number, piece in enumerate(split_at_paragraphs(text, limit)):
        yield f"#{number:04d}", piece


def split_at_paragraphs(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters, cut at empty lines; else at line ends, at sentence ends, at blanks,
    anywhere.

    Pieces are even in length: a work of 1.1 limits gives two halves, not a whole and a scrap. But for the white space
    at the cuts, they hold the whole text.
    """
    count = -(-len(text) // limit)
    pieces: list[str] = []
    start = 0
    while len(text) - start > limit:
        aim = start + max((len(text) - start) // max(count - len(pieces), 2), 1)
        end = min(start + limit, len(text))
        aim = min(aim, end)
        for separator in ("\n\n", "\n", ". ", " "):
            after = text.find(separator, aim, end)
            before = text.rfind(separator, start + 1, aim)
            cut = after if after != -1 and (before == -1 or after - aim <= aim - before) else before
            if cut > start:
                cut += separator == ". "  # the full stop stays with its sentence
                break
        else:
            cut = end
        pieces.append(text[start:cut].strip("\n").rstrip())
        start = cut
    pieces.append(text[start:].strip("\n").rstrip())
    return [p for p in pieces if p.strip()]
