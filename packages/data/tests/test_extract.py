"""Sources become documents; a record that can't be read is set aside with its reason, and its neighbours stay."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
from conftest import run_stage
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts.errors import UserError
from headwater_data.config import ExtractConfig
from headwater_data.ingest import standard_library
from headwater_data.ingest.extract import split_at_paragraphs, tidy
from headwater_data.ingest.fetch import Member
from headwater_data.ingest.html import decode, main_text
from headwater_data.ingest.pack import pack_tar, pack_warc
from headwater_data.ingest.readers import READERS, Malformed, Raw, Slice


def make_source(folder: Path, reader: str, members: dict[str, bytes], **fields) -> Path:
    """A sources artefact with one source, packed as collect packs it."""
    place = folder / "mine"
    place.mkdir(parents=True)
    files = [Member(path, data, None) for path, data in members.items()]
    if reader == "html":
        records = pack_warc(files, "https://example.org/", place)
    elif reader in ("text", "markdown", "code", "dialogue"):
        records = pack_tar(files, place)
    else:
        records = len(files)
        for path, data in members.items():
            (place / path).write_bytes(data)
    description = {
        "name": "mine", "role": "corpus", "category": "prose", "licence": "CC0-1.0", "language": "en",
        "reader": reader, "records": records, "text_field": "text", "base_url": "https://example.org/",
    }  # fmt: skip
    (place / "source.json").write_text(json.dumps({**description, **fields}))
    return folder


def read(folder: Path, reader: str) -> tuple[list[Raw], list[Malformed]]:
    source = json.loads((folder / "mine" / "source.json").read_text())
    records = list(READERS[reader](Slice(folder / "mine", source, 0, 10_000, ExtractConfig())))
    return [r for r in records if isinstance(r, Raw)], [r for r in records if isinstance(r, Malformed)]


def extracted(tmp_path: Path, sources: Path, **config) -> tuple[pl.DataFrame, pl.DataFrame, dict]:
    out = run_stage("extract", tmp_path, {"sources": sources}, workers=1, **config)
    rejects = list((out / "rejects").glob("*.parquet"))
    return (
        pl.read_parquet(out / "part-*.parquet"),
        pl.read_parquet(rejects) if rejects else pl.DataFrame(schema={"rule": pl.String}),
        json.loads((out / "metrics.json").read_text()),
    )


def test_real_pages_give_their_main_text_without_navigation(tmp_path):
    pages = dict(islice(standard_library.pydoc_pages(), 5))
    documents, rejects, metrics = extracted(tmp_path, make_source(tmp_path / "in", "html", pages))
    assert len(documents) == 5 and not len(rejects) and metrics["pages"] == {"mine": 5}
    assert not documents["text"].str.contains("<(a|td|tt|span)[ >]").any()
    assert (documents["text"].str.len_chars() > 100).all()


def test_a_page_without_text_and_one_that_is_too_large_are_set_aside_and_their_neighbours_stay(tmp_path):
    pages = {
        "good.html": b"<html><body><p>A page with words in it, enough to be kept.</p></body></html>",
        "empty.html": b"<html><body></body></html>",
        "large.html": b"<p>" + b"word " * 5000 + b"</p>",
        "nul.html": b"\0\0\0<p>nul bytes before the text</p>",
    }
    sources = make_source(tmp_path / "in", "html", pages)
    documents, rejects, metrics = extracted(tmp_path, sources, max_page_bytes=10_000)
    assert "A page with words in it" in documents["text"][0]
    assert {"empty", "page_too_large"} <= set(rejects["rule"])
    assert len(documents) + len(rejects) == metrics["records"] == 4
    assert not any("\0" in text for text in documents["text"])


@pytest.mark.parametrize(("cut", "readable"), [(40, 19), (300, 19), (1000, 16)])
def test_of_a_truncated_warc_what_lies_before_the_cut_counts_and_the_loss_is_recorded(tmp_path, cut, readable):
    pages = {f"{i}.html": f"<p>Page number {i} has its own words.</p>".encode() for i in range(20)}
    sources = make_source(tmp_path / "in", "html", pages)
    warc = sources / "mine" / "pages.warc.gz"
    warc.write_bytes(warc.read_bytes()[:-cut])
    documents, rejects, metrics = extracted(tmp_path, sources)
    assert len(documents) == readable and "has its own words" in documents["text"][-1]
    assert len(rejects) and set(rejects["rule"]) <= {"truncated_warc", "empty"}


def test_text_that_is_no_text_is_set_aside(tmp_path):
    files = {"a.txt": b"plain text", "b.txt": b"\0\1\2binary", "c.txt": "Füße".encode("latin-1")}
    good, bad = read(make_source(tmp_path / "in", "text", files), "text")
    assert [r.text for r in good] == ["plain text", "Füße"]
    assert [(m.key, m.rule) for m in bad] == [("b.txt", "not_utf8")]


def test_malformed_json_lines_are_set_aside_one_by_one(tmp_path):
    lines = b'{"text": "first"}\n{broken\n{"other": 1}\n{"text": 5}\n\n{"text": "last"}\n'
    documents, rejects, _ = extracted(tmp_path, make_source(tmp_path / "in", "jsonl", {"x.jsonl": lines}))
    assert documents["text"].to_list() == ["first", "last"]
    assert rejects["rule"].to_list() == ["not_a_json_record"] * 3


def test_markdown_keeps_the_words_of_links_and_loses_their_targets(tmp_path):
    files = {"a.md": b"# Title\n\nSee [the manual](http://x.org/y) first.\n\n---\n\nEnd."}
    (record,), _ = read(make_source(tmp_path / "in", "markdown", files), "markdown")
    assert record.text == "# Title\n\nSee the manual first.\n\nEnd."


def test_dictionary_entries_are_read_by_their_index_and_a_damaged_file_is_set_aside(tmp_path):
    entries = [f"word{i}\n   the meaning of word number {i}\n".encode() for i in range(50)]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(n: int) -> str:
        return (number(n // 64) if n >= 64 else "") + letters[n % 64]

    at, index = 0, []
    for i, entry in enumerate(entries):
        index.append(f"word{i}\t{number(at)}\t{number(len(entry))}\n")
        at += len(entry)
    members = {"d.index": "".join(index).encode(), "d.dict.dz": gzip.compress(b"".join(entries))}
    good, bad = read(make_source(tmp_path / "in", "dictd", members), "dictd")
    assert not bad and "\n\n".join(r.text for r in good) == "\n\n".join(e.decode().strip() for e in entries)
    members["d.dict.dz"] = members["d.dict.dz"][:-30]
    good, bad = read(make_source(tmp_path / "spoilt", "dictd", members), "dictd")
    assert not good and [m.rule for m in bad] == ["unreadable_dictionary"]


def test_character_vectors_of_an_r_database_are_works(tmp_path):
    lines = [f"Line {i} of a novel." for i in range(150)]
    blob = b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(x)) + x.encode() for x in lines)
    packed = zlib.compress(blob)
    members = {"Rdata.rdb": struct.pack(">i", len(blob)) + packed}
    (record,), _ = read(make_source(tmp_path / "in", "r-text", members), "r-text")
    assert record.text == "\n".join(lines)


def test_dialogues_are_turns_in_lines_and_broken_ones_are_set_aside(tmp_path):
    files = {
        "a.yml": b"conversations:\n- - Hello\n  - Hi there\n- - alone\n",
        "b.yml": b"categories: [x]\n",
        "c.yml": b"{{{",
    }
    good, bad = read(make_source(tmp_path / "in", "dialogue", files), "dialogue")
    assert [r.text for r in good] == ["- Hello\n- Hi there"]
    assert len(bad) == 3


def test_no_source_of_role_corpus_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no source has the role corpus"):
        extracted(tmp_path, make_source(tmp_path / "in", "text", {"a.txt": b"x"}, role="items"))


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    modules = dict(islice(standard_library.modules(), 30))
    sources = make_source(tmp_path / "in", "code", modules)
    for name in "ab":
        (tmp_path / name).mkdir()
    whole = run_stage("extract", tmp_path / "a", {"sources": sources}, workers=1, records_per_shard=5)
    parallel = run_stage("extract", tmp_path / "b", {"sources": sources}, workers=2, records_per_shard=5)
    names = sorted(p.name for p in whole.glob("part-*"))
    assert len(names) == 6
    assert all((whole / n).read_bytes() == (parallel / n).read_bytes() for n in names)


@given(st.binary(max_size=400))
def test_no_bytes_break_the_page_reader(data):
    try:
        text, title = main_text(decode(data, None))
    except (ValueError, RuntimeError):
        return
    assert isinstance(text, str) and isinstance(title, str)


@given(st.text(max_size=300))
def test_tidy_text_stays_as_it_is(text):
    once = tidy(text)
    assert tidy(once) == once
    assert "\n\n\n" not in once and "\r" not in once and "\0" not in once


@given(st.text(alphabet="ab. \n", min_size=1, max_size=400), st.integers(5, 60))
def test_pieces_of_a_work_hold_all_of_its_words_and_keep_the_limit(text, limit):
    pieces = split_at_paragraphs(text, limit)
    assert all(len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
