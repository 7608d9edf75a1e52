import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater_align.batching import length_buckets, pad


@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 16), st.integers(0, 9))
def test_an_epoch_visits_every_row_once(lengths, batch_size, epoch):
    batches = length_buckets(lengths, batch_size, seed=3, epoch=epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= batch_size for batch in batches)


def test_epochs_differ_and_repeat_themselves():
    lengths = list(range(1, 101))
    assert length_buckets(lengths, 8, 1, 0) == length_buckets(lengths, 8, 1, 0)
    assert length_buckets(lengths, 8, 1, 0) != length_buckets(lengths, 8, 1, 1)


def test_buckets_hold_rows_of_like_length():
    lengths = [1 + (37 * i) % 256 for i in range(256)]
    padded = sum(max(lengths[r] for r in batch) * len(batch) for batch in length_buckets(lengths, 8, 1, 0))
    assert padded < 1.1 * sum(lengths)


def test_padding_stands_on_the_right_up_to_a_multiple():
    assert torch.equal(pad([[1, 2, 3], [4]], 0, multiple=4), torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]]))
