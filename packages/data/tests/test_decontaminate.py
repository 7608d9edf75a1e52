"""Planted benchmark items are found and cut; what only resembles them stays."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts.errors import UserError
from headwater_data.decontaminate.excise import merge_spans, remainders

ITEM = "Which of these planets turns on its side as it goes around the sun each year? Uranus does so"
SHORT = "The quick answer to this riddle is always forty two"


@pytest.fixture
def items(tmp_path):
    folder = tmp_path / "items"
    folder.mkdir()
    rows = [("planets-1", ITEM), ("riddle-1", SHORT), ("tiny-1", "yes it is")]
    lines = [json.dumps({"id": i, "task": "quiz", "text": t, "query": "", "choices": [], "label": 0}) for i, t in rows]
    (folder / "quiz.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def decontaminated(tmp_path, texts, items, **config):
    folder = documents_folder(tmp_path / "in", documents_frame(texts))
    out = run_stage("decontaminate", tmp_path, {"documents": folder, "items": items}, workers=1, **config)
    overlap = [json.loads(line) for line in (out / "overlap.jsonl").read_text().splitlines()]
    return out, pl.read_parquet(out / "part-*.parquet"), overlap


def test_planted_items_are_found_whatever_their_case_punctuation_and_lines(tmp_path, topics, items):
    body = max(topics, key=len)
    middle = len(body) // 2
    disguised = ITEM.upper().replace("?", " --").replace(" AS ", "\n\nas,  ")
    texts = [f"{body[:middle]} {disguised} {body[middle:]}", topics[1] + "\n" + SHORT, topics[2], "yes it is"]
    out, kept, overlap = decontaminated(tmp_path, texts, items)
    assert {(o["id"], o["containment"], o["held_by"][0]["id"]) for o in overlap} == {
        ("planets-1", 1.0, "web/d0"), ("riddle-1", 1.0, "web/d1")
    }  # fmt: skip
    text = " ".join(kept["text"].to_list()).lower()
    assert "uranus" not in text and "riddle" not in text
    assert topics[2] in kept["text"].to_list() and "yes it is" in kept["text"].to_list()
    assert {"web/d0~1", "web/d0~2"} <= set(kept["id"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tasks"]["quiz"] == {"items": 3, "too_short": 1, "found": 2, "contained": 2}
    spans = pl.read_parquet(out / "rejects/*.parquet")
    assert any("URANUS" in t for t in spans["text"])


def test_half_an_item_is_reported_with_its_containment(tmp_path, topics, items):
    half = " ".join(ITEM.split()[:15])
    _, _, overlap = decontaminated(tmp_path, [topics[0] + " " + half + " " + topics[1]], items)
    assert overlap[0]["containment"] == pytest.approx(3 / 7, abs=1e-3)  # 19 words: 7 13-grams, 3 of them here


def test_twelve_words_in_a_row_are_no_leak(tmp_path, topics, items):
    _, kept, overlap = decontaminated(tmp_path, [topics[0] + " " + " ".join(ITEM.split()[:12])], items)
    assert not overlap and len(kept) == 1


def test_a_phrase_in_many_documents_is_common_and_stays_but_a_whole_item_goes(tmp_path, topics, items):
    phrase = " ".join(ITEM.split()[:15])
    out, kept, overlap = decontaminated(tmp_path, [t + " " + phrase for t in topics[:12]], items)
    assert len(kept) == 12 and not overlap
    assert json.loads((out / "metrics.json").read_text())["common_ngrams"] == 3
    (tmp_path / "whole").mkdir()
    _, kept, overlap = decontaminated(tmp_path / "whole", [t + " " + ITEM for t in topics[:12]], items)
    assert overlap[0]["documents"] == 12 and "Uranus" not in " ".join(kept["text"])


def test_action_remove_takes_the_whole_document(tmp_path, topics, items):
    out, kept, _ = decontaminated(tmp_path, [topics[0] + ITEM, topics[1]], items, action="remove")
    assert kept["id"].to_list() == ["web/d1"]
    assert pl.read_parquet(out / "rejects/*.parquet")["rule"].to_list() == ["holds_item"]


def test_a_broken_item_file_is_named_with_its_line(tmp_path, topics, items):
    (items / "quiz.jsonl").write_text('{"id": "1", "task": "quiz", "text": "a"}\n{"id": 2}\n')
    with pytest.raises(UserError, match=r"quiz\.jsonl: line 2"):
        decontaminated(tmp_path, topics[:2], items)


@given(st.text(alphabet="aİß .\n", min_size=1, max_size=60), st.integers(1, 3), st.integers(0, 5))
def test_cut_spans_cover_the_matched_words_in_any_script(text, n, margin):
    from headwater_data.words import WORD

    count = len(WORD.findall(text.lower()))
    if count < n:
        return
    (span,) = merge_spans(text, [(0, n)], margin)
    assert 0 <= span[0] < span[1] <= len(text)
    if margin == 0:
        assert WORD.findall(text[slice(*span)].lower())[:n] == WORD.findall(text.lower())[:n]
    assert all(piece in text for piece in remainders(text, [span], 1))


_TEXT = (
    "A ranger walks north from the lake for three hours, rests by an old oak, and then turns back because the river "
    "has flooded the lower path. Which of the following did she most likely see first? The old oak by the trail"
)
_FILLING = "and so it goes on in this"
_ALIKE = "A ranger walks along the lake and sees an old oak by the river and a flooded path in the valley"
LONG = _TEXT.split()
FOUND = {  # method -> which disguises it finds; the rates on 200 real items each stand in benchmarks/results/leaks.json
    "gpt3": {"verbatim", "start"},
    "palm": {"verbatim", "start"},
    "llama": {"verbatim", "start"},
    "fuzzy": {"verbatim", "start", "dropped", "changed"},
}
DISGUISES = {
    "verbatim": LONG,
    "start": LONG[: len(LONG) * 17 // 20],
    "dropped": [w for i, w in enumerate(LONG) if i % 7 != 3],
    "changed": ["indeed" if i % 6 == 3 else w for i, w in enumerate(LONG)],
    "in pieces": [w for i in range(0, len(LONG), 4) for w in (*LONG[i : i + 4], *_FILLING.split())],
    "another": _ALIKE.split(),
}


@pytest.mark.parametrize("method", sorted(FOUND))
def test_what_each_method_finds_and_what_it_leaves(tmp_path, topics, items, method):
    item = {"id": "ranger", "task": "quiz", "text": " ".join(LONG), "query": "", "choices": [], "label": 0}
    (items / "quiz.jsonl").write_text(json.dumps(item) + "\n")
    texts = [f"{topics[i]} {' '.join(words)} {topics[i + 1]}" for i, words in enumerate(DISGUISES.values())]
    _, kept, overlap = decontaminated(tmp_path, [*texts, *topics[20:30]], items, method=method)
    held = {int(d["id"].removeprefix("web/d")) for o in overlap for d in o["held_by"] if d["leak"]}
    cut = {i for i, text in enumerate(texts) if text not in set(kept["text"])}
    expected = {i for i, name in enumerate(DISGUISES) if name in FOUND[method]}
    assert cut == held == expected
    assert set(topics[20:30]) <= set(kept["text"])
