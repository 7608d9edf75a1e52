"""Repeated lines, paragraphs and substrings: against a suffix array, and what is left."""

from __future__ import annotations

import json
import random

import numpy as np
import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given
from hypothesis import strategies as st
from pydivsufsort import divsufsort, kasai

from headwater_data.dedup.passages import BLOOM, cut, unit_spans
from headwater_data.words import WORD


def deduplicated(tmp_path, texts, earlier=None, **config):
    inputs = {
        "documents": documents_folder(
            tmp_path / "in", *[documents_frame(t, source=f"s{i}") for i, t in enumerate(texts)]
        )
    }
    if earlier is not None:
        inputs["earlier"] = earlier
    config = {"workers": 1, "verify_jaccard": 1.0, "cluster_jaccard": 1.0, **config}
    out = run_stage("dedup", tmp_path, inputs, **config)
    rejects = sorted((out / "rejects").glob("*.parquet"))
    kept = pl.read_parquet(out / "part-*.parquet")
    return out, kept, pl.read_parquet(rejects) if rejects else pl.DataFrame(schema={"rule": pl.String})


def suffix_array_positions(words: list[str], bounds: list[int], n: int) -> set[int]:
    """Positions whose n-gram stands at least twice, by Lee et al.'s way: suffix array and longest common prefixes."""
    number = {word: i + 1 for i, word in enumerate(dict.fromkeys(words))}
    symbols, home = [], []
    for i, word in enumerate(words):
        if i in bounds:
            symbols += [number_of_separator(len(number), i)]
            home += [-1]
        symbols += [number[word]]
        home += [i]
    dense = {s: i for i, s in enumerate(sorted(set(symbols)))}
    data = np.array([dense[s] for s in symbols], np.int64)
    order = divsufsort(data)
    common = kasai(data, order)
    found = set()
    for at in range(len(order) - 1):
        if common[at] >= n:
            found |= {home[order[at]], home[order[at + 1]]}
    return found


def number_of_separator(words: int, position: int) -> int:
    return words + 1 + position  # every document's own, so that no substring crosses one


def test_substrings_are_those_that_a_suffix_array_finds(tmp_path, topics):
    n, rng = 20, random.Random(3)
    passages = [" ".join(topics[i].split()[:60]) for i in (3, 4, 5)]
    texts = []
    for i in range(30):
        own = topics[10 + i].split()[:150]
        at = rng.randrange(len(own))
        texts.append(" ".join([*own[:at], rng.choice(passages), *own[at:]]))
    out, kept, rejects = deduplicated(tmp_path, [texts], substrings={"min_words": n, "keep": "none"})
    words, starts, spans = [], [], []
    for text in texts:
        starts.append(len(words))
        words += WORD.findall(text.lower())
    repeated = suffix_array_positions(words, starts, n)
    covered = {p + k for p in repeated for k in range(n)}
    for i in range(len(texts)):
        end = starts[i + 1] if i + 1 < len(texts) else len(words)
        spans.append(
            [w for p, w in zip(range(starts[i], end), words[starts[i] : end], strict=True) if p not in covered]
        )
    left = [WORD.findall(t.lower()) for t in kept.sort(pl.col("id").str.extract(r"(\d+)$").cast(int))["text"]]
    assert left == spans and len(covered) > 30 * 50
    assert set(rejects["rule"]) == {"repeated_substring"}


def test_the_first_occurrence_stays_and_nothing_stands_twice_afterwards(tmp_path, topics):
    passage = " ".join(topics[3].split()[:70])
    texts = [
        f"{' '.join(topics[20 + i].split()[:40])} {passage} {' '.join(topics[30 + i].split()[:40])}" for i in range(4)
    ]
    _, kept, rejects = deduplicated(tmp_path, [texts[:2], texts[2:]], substrings={"min_words": 50})
    assert [passage in " ".join(t.split()) for t in kept["text"]] == [True, False, False, False]
    assert rejects["id"].to_list() == ["s0/d1~cut1", "s1/d0~cut1", "s1/d1~cut1"]
    seen = set()
    for text in kept["text"]:
        words = WORD.findall(text.lower())
        for i in range(len(words) - 49):
            assert (gram := tuple(words[i : i + 50])) not in seen
            seen.add(gram)


def test_a_document_of_which_little_is_left_goes_whole(tmp_path, topics):
    text = " ".join(topics[3].split()[:70])
    texts = [f"{text} {' '.join(topics[9].split()[:50])}", f"oh: {text}"]
    _, kept, rejects = deduplicated(tmp_path, [texts], substrings={"min_words": 50})
    assert kept["id"].to_list() == ["s0/d0"]
    assert rejects.select("id", "rule").rows() == [("s0/d1", "repeated_substring")]


@pytest.mark.parametrize("bloom", [False, True])
@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_passages_that_stood_before_go_and_short_ones_stay(tmp_path, unit, bloom):
    gap = {"line": "\n", "paragraph": "\n\n"}[unit]
    notice = "This notice stands on each of the pages of the site."
    texts = [gap.join((f"Page {i} says something that no other page says, {i}.", notice, "OK then.")) for i in range(3)]
    settings = {"unit": unit, "min_words": 5, "bloom": bloom}
    out, kept, rejects = deduplicated(tmp_path, [texts[:1], texts[1:]], passages=settings)
    assert [notice in t for t in kept["text"]] == [True, False, False]
    assert all("OK then." in t and "no other page" in t for t in kept["text"])
    assert rejects.select("rule", "text").unique().rows() == [(f"repeated_{unit}", notice)]
    assert (out / BLOOM).exists() == bloom


def test_a_bloom_filter_goes_on_where_the_earlier_corpus_ended(tmp_path):
    lines = [f"Line number {i} is one of the lines that come again later." for i in range(2000)]
    settings = {"passages": {"unit": "line", "bloom": True, "expected": 10_000}}
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    first, _, _ = deduplicated(one, [["\n".join(lines[:1000])]], **settings)
    _, kept, rejects = deduplicated(two, [["\n".join(lines[500:])]], earlier=first, **settings)
    assert kept["text"].item() == "\n".join(lines[1000:])
    assert rejects["id"].item(0) == "s0/d0~cut1" and len(rejects) == 500


def test_repeated_documents_go_through_the_filter_whole(tmp_path, topics):
    texts = [topics[0], topics[1], topics[0] + "\n\nMore."]
    settings = {"unit": "document", "bloom": True}
    _, kept, rejects = deduplicated(tmp_path, [texts, texts[:2]], passages=settings)
    assert kept["id"].to_list() == ["s0/d0", "s0/d1", "s0/d2"] and set(rejects["rule"]) == {"exact_duplicate"}


@given(st.text(alphabet="ab \n", max_size=60))
def test_units_hold_every_character_that_is_no_white_space(text):
    for unit in ("line", "paragraph", "document"):
        spans = unit_spans(text, unit)
        assert "".join("".join(text[a:b] for a, b in spans).split()) == "".join(text.split())
        assert all(text[a:b].strip() for a, b in spans)


@given(st.text(min_size=1, max_size=50), st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=5))
def test_what_is_cut_and_what_is_left_are_the_text(text, cuts):
    spans = sorted((a, min(a + n, len(text)), "r") for a, n in cuts if a < len(text))
    left, pieces = cut(text, spans)
    assert sum(map(len, (p for _, p, _ in pieces))) == len({i for a, b, _ in spans for i in range(a, b)})
    assert all(text[start:].startswith(piece) for _, piece, start in pieces)
    assert json.dumps(left)


def test_nothing_is_cut_out_of_what_is_exempt(tmp_path, topics):
    passage = " ".join(topics[3].split()[:70])
    texts = [f"{' '.join(topics[20 + i].split()[:40])} {passage}" for i in range(4)]
    _, kept, rejects = deduplicated(tmp_path, [texts], substrings={"min_words": 50}, passages_exempt=["internet"])
    assert kept.sort("id")["text"].to_list() == texts and not len(rejects)
