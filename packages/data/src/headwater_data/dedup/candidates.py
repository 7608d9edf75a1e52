"""Which documents are duplicates: pairs from buckets on disk, their true similarity, and who survives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from rapidfuzz.distance import Levenshtein

from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import DedupConfig
from ..documents import part_name
from ..words import WordStream, word_stream
from .minhash import bucket_pairs, clusters, jaccard, shingles
from .runs import groups, map_array, merge_runs, ranges, save_array
from .sign import NumberedBlock

PAIRS_PER_TASK = 50_000
CACHED_DOCUMENTS = 4_000
NO_PAIRS = np.zeros((0, 2), np.int64)


class Search:
    """The search for duplicates in signed blocks; every step is kept in `run.work` and not made twice."""

    def __init__(self, run: Run, shards: list[NumberedBlock], signed: Path, config: DedupConfig):
        self.run, self.shards, self.signed, self.config = run, shards, signed, config
        self.offsets = {s.number: s.first for s in shards}
        self.documents = sum(s.rows for s in shards)

    def equal(self, name: str) -> np.ndarray:
        """Pairs (first of its equals, another) of documents with equal hashes in the runs `name`: (pairs, 2) int64."""
        return self._by_range(name, partial(_equal_pairs, self.signed / name, self.offsets))

    def candidates(self, gone: np.ndarray) -> np.ndarray:
        """Pairs that share an LSH bucket, without the documents in `gone` (sorted): (pairs, 2) int64."""
        save_array(self.run.work / "gone.npy", gone)
        work = partial(_band_pairs, self.signed / "bands", self.offsets, self.config.bands, self.run.work / "gone.npy")
        return self._by_range("bands", work)

    def _by_range(self, name: str, work: Callable) -> np.ndarray:
        folder, parts = self.run.work / f"pairs-{name}", ranges(self.documents)
        fan_out(self.run, f"pairs-{name}", partial(work, folder, parts), range(parts), self.config)
        found = [np.load(folder / f"{part:05d}.npy") for part in range(parts)]
        return np.unique(np.concatenate([NO_PAIRS, *found]), axis=0)

    def similarity(self, name: str, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True Jaccard similarity of the shingles, and edit similarity of the words, of each pair.

        Args:
            name: of this step, for its progress.
            pairs: (pairs, 2) int64.

        Returns:
            (pairs,) float64 each; the edit similarity is 1 where it was not asked for or the Jaccard is too low.
        """
        if not len(pairs):
            return np.zeros(0), np.zeros(0)
        words, results = self.run.work / f"{name}-words", self.run.work / f"{name}-similarity"
        wanted = np.unique(pairs)
        here = [s for s in self.shards if _within(wanted, s).any()]
        save_array(words / "wanted.npy", wanted)
        fan_out(self.run, f"{name}-words", partial(_keep_words, words), here, self.config, light=True)
        starts = range(0, len(pairs), PAIRS_PER_TASK)
        save_array(results / "pairs.npy", pairs)
        compare = partial(_compare, words, results, {s.first: s.number for s in here}, self.config)
        fan_out(self.run, f"{name}-similarity", compare, starts, self.config)
        both = np.concatenate([np.load(results / f"{start}.npy") for start in starts], axis=1)
        return both[0], both[1]

    def facts(self, documents: np.ndarray) -> pl.DataFrame:
        """What `sign_block` wrote of these documents (sorted, distinct), with `document` and `earlier`."""
        found = []
        for shard in self.shards:
            here = documents[_within(documents, shard)]
            if len(here):
                facts = pl.read_parquet(self.signed / part_name(shard.number))[(here - shard.first).tolist()]
                found.append(facts.with_columns(document=pl.Series(here), earlier=pl.lit(shard.earlier)))
        return pl.concat(found) if found else pl.DataFrame(schema={"document": pl.Int64, "id": pl.String})


def _within(documents: np.ndarray, shard: NumberedBlock) -> np.ndarray:
    return (documents >= shard.first) & (documents < shard.first + shard.rows)


def _equal_pairs(runs: Path, offsets: dict[int, int], folder: Path, parts: int, part: int) -> None:
    keys, places = merge_runs(runs, offsets, 0, part, parts)
    first = groups(keys)
    again = np.flatnonzero(first != np.arange(len(keys)))
    save_array(folder / f"{part:05d}.npy", np.stack([places[first[again]], places[again]], axis=1))


def _band_pairs(
    runs: Path, offsets: dict[int, int], bands: int, gone: Path, folder: Path, parts: int, part: int
) -> None:
    removed, found = np.load(gone), [NO_PAIRS]
    for band in range(bands):
        keys, places = merge_runs(runs, offsets, band, part, parts)
        left = ~np.isin(places, removed)
        found.append(bucket_pairs(keys[left], places[left]))
        if band % 16 == 15:
            found = [np.unique(np.concatenate(found), axis=0)]
    save_array(folder / f"{part:05d}.npy", np.unique(np.concatenate(found), axis=0))


def _keep_words(folder: Path, shard: NumberedBlock) -> None:
    """The word hashes of a block's wanted documents."""
    wanted = map_array(folder / "wanted.npy")
    here = np.array(wanted[_within(wanted, shard)])
    stream = word_stream(shard.block.read(["text"])["text"].gather(here - shard.first).to_list())
    save_array(folder / f"{shard.number:05d}.words.npy", stream.hashes)
    save_array(folder / f"{shard.number:05d}.starts.npy", stream.starts)
    save_array(folder / f"{shard.number:05d}.documents.npy", here)


def _compare(words: Path, results: Path, numbers: dict[int, int], config: DedupConfig, start: int) -> None:
    pairs = map_array(results / "pairs.npy")[start : start + PAIRS_PER_TASK]
    firsts = np.array(sorted(numbers))
    blocks: dict[int, list[np.ndarray]] = {}
    kept: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def read(document: int) -> tuple[np.ndarray, np.ndarray]:
        """(words, distinct shingles sorted); the last few thousand documents stay in memory."""
        if document not in kept:
            number = numbers[int(firsts[np.searchsorted(firsts, document, side="right") - 1])]
            if number not in blocks:
                blocks[number] = [map_array(words / f"{number:05d}.{n}.npy") for n in ("documents", "starts", "words")]
            here, starts, hashes = blocks[number]
            at = int(np.searchsorted(here, document))
            own = np.array(hashes[starts[at] : starts[at + 1]])
            hashes, _ = shingles(WordStream(own, np.array([0, len(own)])), config.shingle_words)
            kept[document] = own, np.unique(hashes)
            if len(kept) > CACHED_DOCUMENTS:
                kept.popitem(last=False)
        kept.move_to_end(document)
        return kept[document]

    both = np.ones((2, len(pairs)))
    for i, (a, b) in enumerate(pairs.tolist()):
        (words_a, shingles_a), (words_b, shingles_b) = read(a), read(b)
        both[0, i] = jaccard(shingles_a, shingles_b)
        if config.verify_edit and both[0, i] >= config.verify_jaccard:
            both[1, i] = Levenshtein.normalized_similarity(
                words_a.tolist(), words_b.tolist(), score_cutoff=config.verify_edit
            )
    save_array(results / f"{start}.npy", both)


def survivors(pairs: np.ndarray, facts: pl.DataFrame, prefer: tuple[str, ...]) -> pl.DataFrame:
    """Clusters of connected pairs, and the member of each that stays.

    First the documents of an earlier corpus, then the preferred sources, then the least `rank`, then the first.

    Args:
        pairs: (pairs, 2) int64 documents.
        facts: document, source, rank, earlier: every document of the pairs, ascending.

    Returns:
        document, kept: one row a document of the pairs; the one that stays is its own `kept`.
    """
    members = facts["document"].to_numpy()
    labels = clusters(len(members), np.searchsorted(members, pairs))
    preferred = {name: i for i, name in enumerate(prefer)}
    ranked = facts.with_columns(
        label=pl.Series(labels),
        preference=pl.col("source").replace_strict(preferred, default=len(preferred), return_dtype=pl.Int64),
    ).sort(pl.col("earlier").not_(), "preference", "rank", "document")
    best = ranked.group_by("label", maintain_order=True).agg(pl.col("document").first().alias("kept"))
    return ranked.join(best, on="label").select("document", "kept").sort("document")
