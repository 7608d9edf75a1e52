"""Benchmark files: what is an item, and that nothing else ends the run or is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_eval import readers
from headwater_eval.catalogue import BENCHMARKS

option = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool)
READERS = [readers.question_with_options, readers.situation_with_options, readers.yes_no, readers.short_answers]


@given(st.lists(option, min_size=2, max_size=8, unique=True), st.data())
def test_lettered_options_come_back_as_they_were_written(options: list[str], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(options) - 1))
    lines = [f"{letter}. {text}" for letter, text in zip("ABCDEFGH", options, strict=False)]
    assert readers.lettered_options("\n".join(lines), lines[label]) == (options, label)


@pytest.mark.parametrize(
    ("block", "answer", "reason"),
    [
        ("\nC. enlightenment\nD. open mind", "D. open mind", "lettered CD"),
        ("\nA. coming home\nB. sail boat?", "B. sail boat", "none of the options"),
        (".\nA. shelf\nB. can", "B. can", "has no letter"),
        ("", "A. x", "none of the options"),
    ],
)
def test_a_block_that_is_broken_in_the_real_file_is_refused(block: str, answer: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        readers.lettered_options(block, answer)


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=3
)
row = st.dictionaries(st.sampled_from(["question", "options", "answer", "passage"]), json_value)


@settings(deadline=None)  # writes a file for each example
@given(
    st.lists(st.binary(max_size=40) | row.map(lambda r: json.dumps(r).encode()), max_size=6), st.sampled_from(READERS)
)
def test_every_row_becomes_an_item_or_a_reject(tmp_path_factory, lines: list[bytes], parse) -> None:
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    read = list(readers.jsonl(parse)(path))
    assert len(read) == sum(1 for line in path.read_bytes().split(b"\n") if line.strip())


def test_bytes_that_are_not_utf8_set_a_csv_row_aside(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(
        b"sent_more,sent_less,stereo_antistereo,bias_type\ncaf\xe9,tea,stereo,age\ncoffee,tea,stereo,age\n"
    )
    first, second = BENCHMARKS["crows_pairs_english"].read(path)
    assert isinstance(first, readers.Reject) and first.row == 1
    assert second[1]["choices"] == ["coffee", "tea"]


def _docstrings(path: Path, rows: list[dict]) -> list:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return [parsed for parsed in BENCHMARKS["docstring_cloze"].read(path) if not isinstance(parsed, readers.Reject)]


def test_cloze_items_do_not_depend_on_the_order_of_rows_and_hold_the_right_ending(tmp_path: Path) -> None:
    rows = [
        {"name": f"module.f{i}", "signature": "(x)", "doc": " ".join(f"word{i}-{j}" for j in range(16 + i))}
        for i in range(30)
    ]
    items = _docstrings(tmp_path / "a.jsonl", rows)
    again = _docstrings(tmp_path / "b.jsonl", rows[::-1])
    assert [fields for _, fields in items] == [fields for _, fields in again]
    assert len({fields["label"] for _, fields in items}) == 4
    for _, fields in items:
        assert fields["text"].endswith(fields["choices"][fields["label"]]) and len(set(fields["choices"])) == 4
