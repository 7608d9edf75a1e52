"""Main text of web pages against gold text: what is lost, what boilerplate is left, what it costs.

Input: the news pages with gold text that newspaper4k's source package carries (Python's package index), many languages.
Words are compared as multisets, single characters in scripts without blanks. `ours` is resiliparse, the default; a row
a measure and other choice of `extract.extractor`. Content lost: share of the gold words that the extraction lacks.
Boilerplate left: share of the extracted words that the gold lacks. Means over the pages; CPU of one process.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.frame import Row, higher_is_better, lower_is_better
from headwater_data.config import SourceConfig
from headwater_data.ingest.fetch import fetch, members
from headwater_data.ingest.parsers import parse

PACKAGE = SourceConfig(
    category="internet", licence="MIT", kind="pypi", package="newspaper4k", version="0.9.6", dist="sdist",
    sha256="a3f2f0e017dddb6f1019ee77aaa8980e13e6ecea0b949abc7167aae4770d2d0e",
    root="newspaper4k-0.9.6/tests/data", include=("html/*.html", "txt/*.txt"), role="items", reader="raw",
)  # fmt: skip
EXTRACTORS = ("resiliparse", "trafilatura", "justext")
_WORD = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")


def run(quick: bool) -> list[Row]:
    """Rows of content lost, boilerplate left, F1 and pages a second."""
    gold = pages()
    if quick:
        gold = dict(list(gold.items())[:5])
    found = {name: measure(name, gold, 1 if quick else 5) for name in EXTRACTORS}
    how = f"{len(gold)} pages"
    rows = []
    for other in EXTRACTORS[1:]:
        ours, peer = found["resiliparse"], found[other]
        for key in ("content lost", "boilerplate left"):
            rows.append(lower_is_better(key, "share of words", ours[key], other, "", peer[key], None, how))
        rows.append(higher_is_better("F1 of words", "share", ours["F1"], other, "", peer["F1"], None, how))
        rows.append(higher_is_better("pages", "pages/CPU s", ours["rate"], other, "", peer["rate"], 10.0, how))
    return rows


def pages() -> dict[str, tuple[bytes, str]]:
    """Name -> (page, gold text)."""
    with tempfile.TemporaryDirectory() as cache:
        files = {m.path: m.data for m in members("gold", PACKAGE, fetch("gold", PACKAGE, Path(cache)))}
    return {
        path.removeprefix("txt/").removesuffix(".txt"): (files[page], data.decode())
        for path, data in sorted(files.items())
        if path.startswith("txt/") and (page := f"html/{path.removeprefix('txt/').removesuffix('.txt')}.html") in files
        and data.strip()
    }  # fmt: skip


def measure(extractor: str, gold: dict[str, tuple[bytes, str]], repetitions: int) -> dict[str, float]:
    """Means over the pages."""
    lost, left, f1 = [], [], []
    for page, text in gold.values():
        try:
            found = words(parse((extractor, page, None))[0])
        except Exception:  # a page that the extractor refuses is lost whole
            found = Counter()
        wanted = words(text)
        shared = (wanted & found).total()
        recall, precision = shared / wanted.total(), shared / max(found.total(), 1)
        lost.append(1 - recall)
        left.append(1 - precision)
        f1.append(2 * precision * recall / (precision + recall) if shared else 0.0)
    start = time.process_time()
    for _ in range(repetitions):
        for page, _ in gold.values():
            try:
                parse((extractor, page, None))
            except Exception:
                continue
    rate = repetitions * len(gold) / (time.process_time() - start)
    n = len(gold)
    return {"content lost": sum(lost) / n, "boilerplate left": sum(left) / n, "F1": sum(f1) / n, "rate": rate}


def words(text: str) -> Counter[str]:
    """Lower-case words, and single characters of scripts that part no words."""
    return Counter(_WORD.findall(text.lower()))
