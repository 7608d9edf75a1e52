"""Padding and truncation as Hugging Face tokenizers do them; packing that loses, cuts and mixes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.sequences import IGNORED, join, pack, packed, pad, truncate, windows

FILLER = 99
sides = st.sampled_from(["left", "right"])
rows_of_ids = st.lists(st.lists(st.integers(0, 98), max_size=20), min_size=1, max_size=6)


@st.composite
def lengths_and_capacity(draw):
    """Often many short rows, sometimes such as fill a sequence."""
    capacity = draw(st.integers(1, 40))
    longest = draw(st.integers(1, capacity))
    return draw(st.lists(st.integers(1, longest), max_size=60)), capacity


def encoded(rows: list[list[int]], truncation: dict | None = None, padding: dict | None = None) -> list:
    """What tokenizers makes of the same ids: a vocabulary of the words "0" to "99"."""
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(100)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if truncation:
        tokenizer.enable_truncation(**truncation)
    if padding:
        tokenizer.enable_padding(pad_id=FILLER, pad_token=str(FILLER), **padding)
    return tokenizer.encode_batch([" ".join(map(str, row)) for row in rows])


@given(rows_of_ids, sides, st.integers(1, 9), st.sampled_from(["longest", 20, 27]))
def test_padding_gives_the_ids_and_the_mask_of_tokenizers(rows, side, multiple, to):
    length = None if to == "longest" else to
    theirs = encoded(rows, padding={"direction": side, "length": length, "pad_to_multiple_of": multiple})
    ids, own = pad(rows, FILLER, to, multiple, side)
    assert ids.tolist() == [e.ids for e in theirs] and ids.dtype == np.int64
    assert own.tolist() == [[bool(m) for m in e.attention_mask] for e in theirs]


@given(rows_of_ids, sides, st.integers(1, 9), st.data())
def test_truncation_and_its_overflow_are_those_of_tokenizers(rows, side, length, data):
    stride = data.draw(st.integers(0, length - 1))
    theirs = encoded(rows, truncation={"max_length": length, "stride": stride, "direction": side})
    for row, encoding in zip(rows, theirs, strict=True):
        assert windows(row, length, stride, side) == [encoding.ids, *(e.ids for e in encoding.overflowing)]
        assert truncate(row, length, side) == encoding.ids


@given(rows_of_ids, sides, st.integers(2, 9), st.integers(1, 8))
def test_windows_padded_together_are_those_of_tokenizers(rows, side, length, multiple):
    theirs = encoded(
        rows,
        truncation={"max_length": length, "stride": 1, "direction": side},
        padding={"direction": side, "pad_to_multiple_of": multiple},
    )
    pieces = [piece for row in rows for piece in windows(row, length, 1, side)]
    expected = [e.ids for encoding in theirs for e in (encoding, *encoding.overflowing)]
    assert pad(pieces, FILLER, "longest", multiple, side)[0].tolist() == expected


def test_flags_are_padded_at_the_places_where_ids_are():
    ids, own = pad([[5, 6, 7], [8]], 0, multiple=4, side="left")
    flags, _ = pad([[True, False, True], [True]], False, multiple=4, side="left")
    assert flags.dtype == bool and flags.tolist() == [[False, True, False, True], [False, False, False, True]]
    assert not ids[~own].any() and not flags[~own].any()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: pad([[1], [1, 2, 3]], 0, to=2), "row 1 has 3 ids, more than the 2 to pad to; truncate"),
        (lambda: truncate([1, 2], 0), "truncated to 0"),
        (lambda: windows([1, 2], 3, stride=3), "windows of 3 that share 3"),
        (lambda: pack([4, 9], 8), "row 1 has 9 ids, more than the 8 of a sequence; truncate"),
        (lambda: pack([4, 0], 8), "row 1 has 0 ids, nothing to pack"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_numbers(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()


@given(lengths_and_capacity(), st.sampled_from(["best-fit", "next-fit"]))
def test_packing_holds_every_row_once_within_capacity_and_within_twice_the_fewest_sequences(case, method):
    lengths, capacity = case
    bins = pack(lengths, capacity, method)
    assert sorted(row for members in bins for row in members) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in members) <= capacity for members in bins)
    assert len(bins) >= sum(lengths) / capacity
    assert (len(bins) - 1) * capacity < 2 * max(1, sum(lengths))
    assert bins == pack(np.array(lengths, np.uint16), capacity, method)


@given(lengths_and_capacity())
def test_best_fit_is_the_textbooks_and_never_worse_than_the_order_given(case):
    lengths, capacity = case
    room: list[int] = []
    for length in sorted(lengths, reverse=True):  # every sequence is looked at for every row
        best = min((i for i in range(len(room)) if room[i] >= length), key=room.__getitem__, default=None)
        if best is None:
            room.append(capacity - length)
        else:
            room[best] -= length
    in_order = pack(lengths, capacity, "next-fit")
    bins = pack(lengths, capacity)
    assert len(bins) == min(len(room), len(in_order))
    if len(room) <= len(in_order):
        assert sorted(capacity - sum(lengths[row] for row in members) for members in bins) == sorted(room)


def test_an_order_that_needs_fewer_sequences_than_best_fit_decreasing_is_kept():
    lengths = [3, 3, 5, 2, 7, 2]  # best-fit decreasing: 7+3, 5+3+2, 2
    assert pack(lengths, 11) == [[0, 1, 2], [3, 4, 5]]


@given(lengths_and_capacity())
def test_next_fit_keeps_the_order_and_opens_a_sequence_only_for_a_row_that_does_not_fit(case):
    lengths, capacity = case
    bins = pack(lengths, capacity, "next-fit")
    assert [row for members in bins for row in members] == list(range(len(lengths)))
    for before, after in zip(bins, bins[1:], strict=False):
        assert sum(lengths[row] for row in before) + lengths[after[0]] > capacity


@given(st.lists(st.lists(st.integers(0, 98), min_size=1, max_size=8), min_size=1, max_size=12), st.integers(8, 20))
def test_every_segment_is_one_whole_row_with_its_own_labels_and_positions(rows, capacity):
    bins = pack([len(row) for row in rows], capacity)
    sheet = packed(rows, bins, FILLER, to=capacity, multiple=8)
    flags, _ = pad(join([[id % 2 == 0 for id in row] for row in rows], bins), False, capacity, 8)
    assert sheet.ids.shape[1] == -(-capacity // 8) * 8
    for line, members in enumerate(bins):
        for number, row in enumerate(members, 1):
            at = sheet.segments[line] == number
            assert np.diff(np.flatnonzero(at)).max(initial=1) == 1
            assert sheet.ids[line][at].tolist() == rows[row]
            assert sheet.positions[line][at].tolist() == list(range(len(rows[row])))
            assert sheet.labels[line][at].tolist() == [*rows[row][1:], IGNORED]
            assert flags[line][at].tolist() == [id % 2 == 0 for id in rows[row]]
        rest = sheet.segments[line] == 0
        assert rest.sum() == len(rest) - sum(len(rows[row]) for row in members)
        assert set(sheet.ids[line][rest]) <= {FILLER} and set(sheet.labels[line][rest]) <= {IGNORED}
        assert not sheet.positions[line][rest].any() and not flags[line][rest].any()
