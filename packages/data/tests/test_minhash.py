"""Signatures against datasketch, recall against the theoretical curve."""

from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater_data.dedup.minhash import band_keys, bucket_pairs, clusters, jaccard, shingles, signatures
from headwater_data.dedup.runs import merge_runs, write_run
from headwater_data.words import ngram_hashes, word_stream


def test_signatures_equal_datasketchs_for_the_same_shingle_hashes(topics):
    hashes, starts = shingles(word_stream(topics[:20]), 5)
    ours = signatures(hashes, starts, 112, seed=7)
    for i in range(20):
        theirs = MinHash(num_perm=112, seed=7, scheme="affine32", hashfunc=lambda h: h)
        theirs.update_batch([int(h) & 0xFFFFFFFF for h in hashes[starts[i] : starts[i + 1]]])
        np.testing.assert_array_equal(ours[i], theirs.hashvalues)


@given(st.lists(st.text(alphabet="ab ,", max_size=12), max_size=5), st.integers(1, 4))
@settings(deadline=None)
def test_ngrams_are_those_of_each_text_alone(texts, n):
    hashes, positions = ngram_hashes(word_stream(texts), n)
    alone = [ngram_hashes(word_stream([text]), n)[0] for text in texts]
    np.testing.assert_array_equal(hashes, np.concatenate([*alone, np.zeros(0, np.uint64)]))
    assert (np.diff(positions) > 0).all()


def test_a_text_without_words_has_no_signature_and_disturbs_no_neighbour():
    texts = ["one two three four five six seven", "", "...", "short one", "one two three four five six seven", ""]
    hashes, starts = shingles(word_stream(texts), 5)
    assert np.diff(starts).tolist() == [3, 0, 0, 1, 3, 0]
    signature = signatures(hashes, starts, 16, seed=1)
    np.testing.assert_array_equal(signature[0], signature[4])
    assert (signature[[1, 2, 5]] == 0xFFFFFFFF).all()


@pytest.mark.parametrize("similarity", [0.6, 0.75, 0.9])
def test_recall_follows_the_curve_of_bands_and_rows(similarity):
    rng, trials, size, bands, rows = np.random.default_rng(5), 400, 200, 14, 8
    shared = round(2 * size * similarity / (1 + similarity))  # J = shared / (2 size - shared)
    parts = []
    for _ in range(trials):
        pool = rng.integers(0, 2**63, 2 * size - shared, dtype=np.uint64)
        parts += [pool[:size], pool[size - shared :]]
    hashes, starts = np.concatenate(parts), np.arange(0, 2 * trials * size + 1, size)
    keys = band_keys(signatures(hashes, starts, bands * rows, seed=3), bands, rows)
    met = np.mean((keys[0::2] == keys[1::2]).any(axis=1))
    expected = 1 - (1 - similarity**rows) ** bands
    assert abs(met - expected) < 4 * np.sqrt(expected * (1 - expected) / trials) + 0.02
    assert jaccard(np.sort(parts[0]), np.sort(parts[1])) == pytest.approx(similarity, abs=0.01)


def test_recall_on_edited_real_text_follows_the_curve(topics):
    """Pieces of real text against themselves with every k-th word changed: found pairs by their true Jaccard."""
    pieces = [
        " ".join(words[i : i + 150]) for t in topics for words in [t.split()] for i in range(0, len(words) - 150, 75)
    ]
    texts, bands, rows = [], 14, 8
    for number, piece in enumerate(pieces):
        words, every = piece.split(), (12, 20, 35, 60)[number % 4]
        texts += [piece, " ".join(f"w{number}" if i % every == every // 2 else w for i, w in enumerate(words))]
    hashes, starts = shingles(word_stream(texts), 5)
    keys = band_keys(signatures(hashes, starts, bands * rows, seed=4), bands, rows)
    met = (keys[0::2] == keys[1::2]).any(axis=1)
    sets = [np.unique(hashes[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    true = np.array([jaccard(a, b) for a, b in zip(sets[0::2], sets[1::2], strict=True)])
    curve = 1 - (1 - true**rows) ** bands
    assert len(true) > 400
    for low in (0.4, 0.55, 0.7, 0.8):
        here = (true >= low) & (true < low + 0.15)
        expected, count = curve[here].mean(), int(here.sum())
        assert count > 50
        assert abs(met[here].mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / count) + 0.02, low


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_buckets_connect_all_their_members_and_nobody_else(values):
    keys = np.array(values, np.uint64)
    order = np.argsort(keys, kind="stable")
    labels = clusters(len(values), bucket_pairs(keys[order], order))
    assert [values.index(v) for v in values] == labels.tolist()


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), min_size=1, max_size=4), st.integers(1, 5))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_merged_range_by_range_are_one_sorted_list(tmp_path, blocks, parts):
    offsets, start = {}, 0
    for number, keys in enumerate(blocks):
        write_run(tmp_path, number, np.array(keys, np.uint64)[None], np.arange(len(keys), dtype=np.uint32))
        offsets[number] = start
        start += len(keys)
    merged = [merge_runs(tmp_path, offsets, 0, part, parts) for part in range(parts)]
    flat = np.array([k for keys in blocks for k in keys], np.uint64)
    order = np.argsort(flat, kind="stable")
    np.testing.assert_array_equal(np.concatenate([k for k, _ in merged]), flat[order])
    np.testing.assert_array_equal(np.concatenate([p for _, p in merged]), order)
