# ruff: noqa: E501  the samples have lines of their own length
"""Formats told by content and read: each on a real or format-true sample, alone, compressed and in archives."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
import zstandard
from conftest import run_stage
from hypothesis import given
from hypothesis import strategies as st
from test_extract import make_source

from headwater_data.config import ExtractConfig
from headwater_data.ingest import standard_library
from headwater_data.ingest.fetch import Member
from headwater_data.ingest.files import FORMATS, plan_files, read_files
from headwater_data.ingest.formats.code import language_of, licence_of, skipped
from headwater_data.ingest.formats.context import bounded_lines
from headwater_data.ingest.formats.sniff import sniff
from headwater_data.ingest.pack import pack_warc
from headwater_data.ingest.records import Malformed, Raw

PROSE = "It was a quiet morning by the lake, and nobody had thought of the boats. "
MEDIAWIKI = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">
  <siteinfo><sitename>W</sitename></siteinfo>
  <page><title>Lake</title><ns>0</ns><id>1</id>
    <revision><id>1</id><text>old</text></revision>
    <revision><id>2</id><text>A '''lake''' is a [[body of water|large body]] of water.{{cite|x=1}}&lt;ref&gt;Book&lt;/ref&gt;

== Types ==
* [[Reservoir]]s are made.
{| class="wikitable"
|-
| cell
|}
[[Category:Water]]</text></revision></page>
  <page><title>Talk:Lake</title><ns>1</ns><revision><text>hi</text></revision></page>
  <page><title>Pond</title><ns>0</ns><redirect title="Lake"/><revision><text>#REDIRECT [[Lake]]</text></revision></page>
</mediawiki>"""
STACKEXCHANGE = """<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" Title="How deep is it?" Body="&lt;p&gt;I &lt;b&gt;wonder&lt;/b&gt; how deep.&lt;/p&gt;" Score="3"/>
  <row Id="2" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Ten metres.&lt;/p&gt;" Score="1"/>
  <row Id="3" PostTypeId="2" ParentId="1" Body="&lt;p&gt;Twenty, by my sonar.&lt;/p&gt;" Score="9"/>
</posts>"""
MBOX = """From ann@example.org Mon Jan  4 10:00:00 2021
From: Ann <ann@example.org>
Subject: The boats
Date: Mon, 4 Jan 2021 10:00:00 +0000
Content-Type: text/plain; charset=utf-8

The boats are gone.
>From the look of it, since Sunday.

-- 
Ann, Lake House, +1 555 0100

From bob@example.org Mon Jan  4 11:00:00 2021
From: Bob <bob@example.org>
Subject: Re: The boats
Content-Type: text/html; charset=utf-8

<html><body><p>Mine is <i>not</i>.</p></body></html>

From bob@example.org Mon Jan  4 12:00:00 2021
From: Bob <bob@example.org>
Subject: Re: The boats

On Monday, Ann wrote:
> The boats are gone.
"""
IRC = """--- Log opened Mon Jan 04 10:00:00 2021
10:00 -!- ann [~ann@host] has joined #lake
10:01 <@ann> anyone seen the boats?
10:02 < bob> mine is here
10:03  * carl looks out of the window
10:04 <@ann> good
"""
SRT = "1\n00:00:01,000 --> 00:00:02,500\n<i>The boats</i> are gone.\n\n2\n00:00:03,000 --> 00:00:04,000\nSince Sunday?\n\n3\n00:00:20,000 --> 00:00:22,000\nMuch later.\n"
VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\n<v Ann>The boats are gone.\n\n00:03.000 --> 00:04.000\nSince Sunday?\n"
LATEX = r"""\documentclass{article} % a comment
\title{On \emph{Lakes}}
\begin{document}\maketitle
\section{Depth}\label{s}
The depth is $d = 20\,\mathrm{m}$, see \cite{a} and 50\% of lakes.
\begin{figure}\includegraphics{x}\caption{No}\end{figure}
\begin{thebibliography}{9}\bibitem{a} A book.\end{thebibliography}
\end{document}"""
JATS = """<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96)//EN" "JATS.dtd">
<article><front><article-meta><title-group><article-title>Lake <italic>depth</italic></article-title></title-group>
<permissions><license><license-p>CC BY 4.0</license-p></license></permissions>
<abstract><p>We measured.</p></abstract></article-meta></front>
<body><sec><title>Methods</title><p>By sonar <xref>[1]</xref>, twice.</p><table-wrap><p>no</p></table-wrap></sec></body>
<back><ref-list><ref>Book</ref></ref-list></back></article>"""
GUTENBERG = f"""The Project Gutenberg eBook of The Lake

Title: The Lake
Author: A. Writer

*** START OF THE PROJECT GUTENBERG EBOOK THE LAKE ***

Produced by Volunteers

CHAPTER I

{PROSE * 3}

*** END OF THE PROJECT GUTENBERG EBOOK THE LAKE ***
Please read the licence.
"""
MARKDOWN = "# Lake\n\nSee [the map](http://x.org/m).\n\n```\ncode\n```\n\n## Boats\n\n- one\n- two\n"
HTML = f"<!DOCTYPE html><html><head><title>Lake</title></head><body><nav>Home</nav><main><p>{PROSE * 4}</p></main></body></html>"
CODE = "#!/usr/bin/env python\n# SPDX-License-Identifier: MIT\nprint('lake')\n"


def epub() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        book.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")
        book.writestr("META-INF/container.xml", '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
                      '<rootfiles><rootfile full-path="O/b.opf"/></rootfiles></container>')  # fmt: skip
        book.writestr("O/b.opf", '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
                      '<metadata><dc:title>The Lake</dc:title></metadata><manifest><item id="b" href="two.xhtml"/>'
                      '<item id="a" href="one.xhtml"/></manifest><spine><itemref idref="a"/><itemref idref="b"/></spine>'
                      "</package>")  # fmt: skip
        for name in ("two", "one"):
            book.writestr(f"O/{name}.xhtml", f"<html><body><h1>Chapter {name}</h1><p>{PROSE * 2}</p></body></html>")
    return out.getvalue()


def warc(tmp: Path) -> bytes:
    pack_warc([Member("a.html", HTML.encode(), None)], "https://example.org/", tmp)
    return (tmp / "pages.warc.gz").read_bytes()


def wet() -> bytes:
    body = PROSE.encode()
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://example.org/w\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body + b"\r\n\r\n"


def parquet() -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"text": [PROSE, "two"], "url": ["https://example.org/p", None]}).write_parquet(out)
    return out.getvalue()


def table() -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "text"])
    writer.writeheader()
    writer.writerows([{"id": 1, "text": PROSE}, {"id": 2, "text": 'with "quotes",\ncommas and lines'}])
    return out.getvalue()


def samples(tmp: Path) -> dict[str, tuple[bytes, list[str]]]:
    """Format -> a file of it, and what its documents must be or hold."""
    quiet = PROSE.strip()
    return {
        "warc": (warc(tmp), [quiet]),
        "html": (HTML.encode(), [quiet]),
        "epub": (epub(), ["Chapter one"]),
        "jsonl": (json.dumps({"text": PROSE, "title": "t"}).encode() + b'\n{"text": "two"}\n', [quiet, "two"]),
        "parquet": (parquet(), [quiet, "two"]),
        "csv": (table().encode(), [quiet, 'with "quotes",\ncommas and lines']),
        "mediawiki": (MEDIAWIKI.encode(), ["A lake is a large body of water.\n\nTypes\n"]),
        "stackexchange": (STACKEXCHANGE.encode(),
                          ["Q: How deep is it?\n\nI wonder how deep.\n\nA: Twenty, by my sonar.\n\nA: Ten metres."]),
        "mbox": (MBOX.encode(), ["The boats\n\nThe boats are gone.\nFrom the look of it, since Sunday.",
                                 "Re: The boats\n\nMine is not."]),
        "irc": (IRC.encode(), ["<ann> anyone seen the boats?\n<bob> mine is here\n* carl looks out of the window\n<ann> good"]),
        "srt": (SRT.encode(), ["The boats are gone.\nSince Sunday?\n\nMuch later."]),
        "vtt": (VTT.encode(), ["The boats are gone.\nSince Sunday?"]),
        "latex": (LATEX.encode(), [r"$d = 20\,\mathrm{m}$"]),
        "jats": (JATS.encode(), ["Lake depth\n\nWe measured.\n\nMethods\n\nBy sonar, twice."]),
        "gutenberg": (GUTENBERG.encode(), [f"CHAPTER I\n\n{(PROSE * 3).strip()}"]),
        "markdown": (MARKDOWN.encode(), ["See the map."]),
        "text": ((PROSE * 3).encode(), [quiet]),
        "code": (CODE.encode(), [CODE.strip()]),
    }  # fmt: skip


NAMES = sorted(set(FORMATS) - {"mail", "lines"})


def read(folder: Path, members: dict[str, bytes], reader="auto", **config) -> tuple[list[Raw], list[Malformed]]:
    """What one source of these files gives."""
    for path, data in members.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    source = {"name": "mine", "reader": reader, "text_field": "text", "base_url": ""}
    records = [r for part in plan_files(folder, source, ExtractConfig(**config)) for r in read_files(part)]
    return [r for r in records if isinstance(r, Raw)], [r for r in records if isinstance(r, Malformed)]


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_told_by_its_content_and_read(tmp_path, name):
    data, expected = samples(tmp_path)[name]
    assert name == "warc" or sniff(data[:65536], "file") == name
    good, _ = read(tmp_path / "in", {"file": data})
    assert len(good) == len(expected)
    for record, text in zip(good, expected, strict=True):
        assert text in record.text, record.text


PACKED = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "twice": lambda data: gzip.compress(zstandard.compress(data)),
}


@pytest.mark.parametrize("how", [*PACKED, "zip", "tar", "tar.gz"])
def test_every_format_is_read_compressed_and_in_archives(tmp_path, how):
    found = samples(tmp_path)
    if how in PACKED:
        members = {name: PACKED[how](data) for name, (data, _) in found.items()}
    else:
        out = io.BytesIO()
        if how == "zip":
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, (data, _) in found.items():
                    archive.writestr(f"d/{name}", data)
        else:
            with tarfile.open(fileobj=out, mode="w:gz" if how == "tar.gz" else "w") as archive:
                for name, (data, _) in found.items():
                    info = tarfile.TarInfo(f"../../{name}")  # nothing is written: it can't climb out
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        members = {"all": out.getvalue()}
    good, _ = read(tmp_path / "in", members)
    assert len(good) == sum(len(expected) for _, expected in found.values())
    texts = "\n".join(r.text for r in good)
    assert all(text in texts for _, expected in found.values() for text in expected)


def test_wet_and_plain_warc_are_read(tmp_path):
    data = wet() * 3
    good, bad = read(tmp_path / "in", {"a.wet": data, "b.wet.gz": gzip.compress(data)})
    assert len(good) == 6 and not bad and {r.text for r in good} == {PROSE}
    assert good[0].url == "https://example.org/w"


def test_metadata_is_kept(tmp_path):
    found = samples(tmp_path)
    good, _ = read(tmp_path / "in", {name: data for name, (data, _) in found.items()})
    meta = {r.key.split("#")[0]: r.meta for r in good}
    assert meta["gutenberg"] == {"title": "The Lake", "author": "A. Writer"}
    assert meta["jats"] == {"title": "Lake depth", "licence": "CC BY 4.0"}
    assert meta["latex"] == {"title": "On Lakes"} and meta["epub"] == {"title": "The Lake"}
    assert meta["code"]["code"] == "Python" and meta["code"]["licence"] == "MIT"
    assert meta["stackexchange"]["answers"] == 2 and meta["mediawiki"] == {"title": "Lake"}


def test_real_mails_and_modules_are_read(tmp_path):
    """Mails that Python's own tests carry, where they are installed; every module of the standard library is code."""
    modules = {path: data for path, data in islice(standard_library.modules(), 40)}
    good, bad = read(tmp_path / "code", modules)
    assert {r.meta["code"] for r in good} == {"Python"} and len(good) + len(bad) == 40
    assert {m.rule for m in bad} <= {"generated", "long_lines", "vendored"}


def test_code_that_is_no_ones_own_work_is_skipped():
    assert skipped("a/node_modules/x.js", "x") == "vendored"
    assert skipped("a/x_pb2.py", "# Generated by the protocol buffer compiler.  DO NOT EDIT!\n") == "generated"
    assert skipped("x.py", "# This file is automatically generated\nx = 1") == "generated"
    assert skipped("x.py", "x = 1\n" + "y" * 2000) == "long_lines"
    assert skipped("x.py", "import os\n\n\ndef f():\n    return os.sep\n") == ""
    assert [language_of(n, "") for n in ("a.py", "b.c", "c.rs", "d.ts", "e.txt", "f.md")] == [
        "Python", "C", "Rust", "TypeScript", "", ""
    ]  # fmt: skip

    assert licence_of("Permission is hereby granted, free of charge, to any person") == "MIT"
    assert licence_of("nothing") == ""


@pytest.mark.parametrize("name", ["jsonl", "parquet", "warc", "lines"])
def test_a_large_file_is_shared_out_and_gives_the_same_documents(tmp_path, name):
    texts = [f"Document {i}. {PROSE * (i % 7)}".strip() for i in range(300)]
    if name == "jsonl":
        data = "".join(json.dumps({"text": t}) + "\n" for t in texts).encode()
    elif name == "lines":
        data = "\r\n".join(texts).encode()
    elif name == "parquet":
        out = io.BytesIO()
        pl.DataFrame({"text": texts}).write_parquet(out, row_group_size=20)
        data = out.getvalue()
    else:
        pages = [Member(f"{i}", f"<html><body><p>{t}</p></body></html>".encode(), None) for i, t in enumerate(texts)]
        pack_warc(pages, "https://example.org/", tmp_path)
        data = (tmp_path / "pages.warc.gz").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(data)
    source = {"name": "mine", "reader": "lines" if name == "lines" else "auto", "text_field": "text", "base_url": ""}
    for step in (len(data) // 7, 1000, 3001):
        parts = plan_files(tmp_path / "in", source, ExtractConfig(split_bytes=step))
        records = [r for part in parts for r in read_files(part)]
        assert len(parts) >= 5
        assert [r.text for r in records if isinstance(r, Raw)] == texts
        assert len({r.key for r in records}) == len(texts) == len(records)


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=12), st.integers(1, 8))
def test_lines_are_split_and_long_ones_are_not_held(lines, most):
    found = list(bounded_lines(io.BytesIO(b"\n".join(lines)), most))
    expected = b"\n".join(lines).split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line for _, line in found] == [
        (e.rstrip(b"\r") if len(e) <= most else None) for e in expected
    ]  # fmt: skip


def test_the_stage_reads_a_source_of_everything(tmp_path):
    members = {f"{name}.dat": data for name, (data, _) in samples(tmp_path).items()}
    sources = make_source(tmp_path / "in", "auto", members)
    out = run_stage("extract", tmp_path, {"sources": sources}, workers=1)
    kept = pl.read_parquet(out / "part-*.parquet")
    assert kept["id"].n_unique() == len(kept) >= len(members)
