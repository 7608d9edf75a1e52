"""Text that stands more than once in the documents that are left: whole lines or paragraphs, and exact substrings.

Lines, paragraphs or documents: the hash of their words, sorted on disk, or looked up in a Bloom filter as Dolma does
(arXiv 2402.00159, section 5.4).

Substrings: Lee et al. 2022 (arXiv 2107.06499, section 4.1) build a suffix array; a substring of n words or more
stands twice exactly where some n-gram of it does, so here the n-grams are hashed and sorted on disk, in memory that
does not grow with the corpus. tests/test_passages.py holds the result against a suffix array.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from rbloom import Bloom

from .._contracts.errors import UserError
from .._contracts.fanout import fan_out
from .._contracts.stage import Run
from ..config import DedupConfig
from ..documents import named, part_name
from ..words import ngram_hashes, word_spans, word_stream
from .runs import groups, map_array, merge_runs, ranges, save_array, write_run
from .sign import NumberedBlock

BLOOM = "seen.bloom"
_UNITS = {
    "line": re.compile(r"[^\n]*\S[^\n]*"),
    "paragraph": re.compile(r"\S(?:[^\n]|\n(?![^\S\n]*\n|\Z))*"),
    "document": re.compile(r"\S(?s:.*)"),
}


def find_passages(
    run: Run, shards: list[NumberedBlock], signed: Path, gone: np.ndarray, config: DedupConfig
) -> Path | None:
    """Find what of the documents that are left stood before.

    Args:
        gone: (documents,) int64, sorted: the documents that are removed anyway.

    Returns:
        A folder from which `cut_spans` reads a block's share; None where the config asks for nothing.
    """
    if config.passages.unit == "off" and not config.substrings.min_words:
        return None
    folder = run.work / "passages"
    save_array(folder / "gone.npy", gone)
    fan_out(run, "passages", partial(_hash_block, folder, signed, config), shards, config)
    for kind in _kinds(config):
        counts = [int(np.load(folder / kind / f"{s.number:05d}.count.npy")) for s in shards]
        offsets = dict(zip((s.number for s in shards), accumulate(counts, initial=0), strict=False))
        save_array(folder / kind / "offsets.npy", np.array([offsets[s.number] for s in shards], np.int64))
        if kind == "units" and config.passages.bloom:
            _look_up(run, folder / kind, shards, offsets, config)
            continue
        parts = ranges(sum(counts))
        find = partial(_repeated, folder / kind, offsets, parts, kind == "substrings" and config.substrings.keep)
        fan_out(run, f"repeated-{kind}", find, range(parts), config)
    return folder


def _kinds(config: DedupConfig) -> list[str]:
    return ["units"] * (config.passages.unit != "off") + ["substrings"] * (config.substrings.min_words > 0)


COLUMNS = ["text", "source", "category"]


def _left(folder: Path, shard: NumberedBlock, documents: pl.DataFrame, config: DedupConfig) -> np.ndarray:
    """Rows of a block that are neither gone nor exempt."""
    gone = np.isin(np.arange(shard.first, shard.first + shard.rows), np.load(folder / "gone.npy"))
    spared = documents.select(named(config.passages_exempt)).to_series().to_numpy()
    return np.flatnonzero(~gone & ~spared)


def unit_spans(text: str, unit: str) -> list[tuple[int, int]]:
    """Characters of a text's lines, paragraphs (parted by empty lines), or of the whole."""
    return [match.span() for match in _UNITS[unit].finditer(text)]


def _hash_block(folder: Path, signed: Path, config: DedupConfig, shard: NumberedBlock) -> None:
    documents = shard.block.read(COLUMNS)
    rows = _left(folder, shard, documents, config)
    texts = documents["text"].gather(rows).to_list()
    scope = pl.read_parquet(signed / part_name(shard.number), columns=["scope"])["scope"].to_numpy()[rows]
    name = f"{shard.number:05d}"
    if config.passages.unit != "off":
        units = [[t[a:b] for a, b in unit_spans(t, config.passages.unit)] for t in texts]
        owner = np.repeat(np.arange(len(texts)), [len(u) for u in units])
        stream = word_stream([u for of_text in units for u in of_text])
        lengths, bounds = np.diff(stream.starts), stream.starts.tolist()
        places = np.flatnonzero(lengths >= config.passages.min_words)
        keys = [xxhash.xxh3_64_intdigest(stream.hashes[bounds[i] : bounds[i + 1]].tobytes()) for i in places.tolist()]
        hashed = np.array(keys, np.uint64) ^ scope[owner[places]]
        if config.passages.bloom:
            save_array(folder / "units" / f"{name}.keys.npy", hashed)
            save_array(folder / "units" / f"{name}.places.npy", places)
        else:
            write_run(folder / "units", shard.number, hashed[None], places.astype(np.uint32))
        save_array(folder / "units" / f"{name}.count.npy", np.array(len(owner)))
    if config.substrings.min_words:
        stream = word_stream(texts)
        grams, positions = ngram_hashes(stream, config.substrings.min_words)
        owner = np.searchsorted(stream.starts, positions, side="right") - 1
        write_run(folder / "substrings", shard.number, (grams ^ scope[owner])[None], positions.astype(np.uint32))
        save_array(folder / "substrings" / f"{name}.count.npy", np.array(len(stream.hashes)))


def _repeated(folder: Path, offsets: dict[int, int], parts: int, keep: str | bool, part: int) -> None:
    """Places of one range whose hash stood before, and of substrings those of first occurrences, ascending."""
    keys, places = merge_runs(folder, offsets, 0, part, parts)
    first, here = groups(keys), np.arange(len(keys))
    again = first != here
    originals = np.unique(first[again])
    if keep == "none":
        again[originals] = True
        originals = originals[:0]
    save_array(folder / f"repeated-{part:05d}.npy", np.sort(places[again]))
    save_array(folder / f"first-{part:05d}.npy", np.sort(places[originals]))


def _look_up(run: Run, folder: Path, shards: list[NumberedBlock], offsets: dict[int, int], config: DedupConfig) -> None:
    """One pass in order through a Bloom filter, which goes on from the earlier corpus's and into the artefact."""
    settings = config.passages
    before = run.inputs["earlier"] / BLOOM if "earlier" in run.inputs else None
    if before is not None and before.is_file():
        seen = _load_bloom(before)
    else:
        seen = Bloom(settings.expected, settings.false_positives, _as_hash)
        before = None
    repeated: list[np.ndarray] = []
    for shard in shards:
        if shard.earlier and before is not None:
            continue  # it is in the filter
        keys = np.load(folder / f"{shard.number:05d}.keys.npy").tolist()
        places = np.load(folder / f"{shard.number:05d}.places.npy")
        old = np.zeros(len(keys), bool)
        for i, key in enumerate(keys):
            old[i] = key in seen
            seen.add(key)
        repeated.append(places[old].astype(np.int64) + offsets[shard.number])
    if seen.approx_items > settings.expected:
        run.log(
            f"note: the Bloom filter holds about {seen.approx_items:.0f} passages, made for {settings.expected}: new "
            f"ones are taken for old more often than {settings.false_positives}; raise dedup.passages.expected"
        )
    save_array(folder / "repeated-00000.npy", np.concatenate([np.zeros(0, np.int64), *repeated]))
    seen.save(str(run.out / BLOOM))


def _load_bloom(path: Path) -> Bloom:
    try:
        return Bloom.load(str(path), _as_hash)
    except Exception as e:  # rbloom raises whatever its reader meets
        raise UserError(f"{path}: no Bloom filter ({e}); make the earlier corpus again") from None


def _as_hash(key: int) -> int:
    """rbloom takes a signed 128-bit hash; the key's 64 bits in both halves, the upper ones mixed."""
    return ((key * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) << 64 | key) - (1 << 127)


def cut_spans(folder: Path, shard: NumberedBlock, documents: pl.DataFrame, config: DedupConfig) -> list[list[tuple]]:
    """What is cut out of one block: a document its (start, end, rule) in characters, ascending; none of what is gone.

    Args:
        documents: the whole block.
    """
    rows = _left(folder, shard, documents, config)
    left = documents["text"].gather(rows).to_list()
    found: dict[int, list[tuple]] = {}
    if config.passages.unit != "off":
        again = set(_share(folder / "units", "repeated", shard).tolist())
        number = 0
        for row, text in zip(rows.tolist(), left, strict=True):
            for a, b in unit_spans(text, config.passages.unit):
                if number in again:
                    found.setdefault(row, []).append((a, b, f"repeated_{config.passages.unit}"))
                number += 1
    if config.substrings.min_words:
        covered = _covered(folder / "substrings", shard, word_stream(left).starts, config.substrings.min_words)
        for i, runs in covered.items():
            spans = word_spans(left[i])
            for a, b in runs:  # from the first word to the next one that stays
                end = spans[b][0] if b < len(spans) else len(left[i])
                found.setdefault(int(rows[i]), []).append((spans[a][0], end, "repeated_substring"))
    return [sorted(found.get(row, [])) for row in range(len(documents))]


def _share(folder: Path, name: str, shard: NumberedBlock) -> np.ndarray:
    """A block's places among all parts, counted from its own start."""
    offset = int(np.load(folder / "offsets.npy")[shard.number])
    end = offset + int(np.load(folder / f"{shard.number:05d}.count.npy"))
    parts = []
    for path in sorted(folder.glob(f"{name}-*.npy")):
        places = map_array(path)
        a, b = np.searchsorted(places, (offset, end))
        parts.append(np.array(places[a:b]) - offset)
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def _covered(folder: Path, shard: NumberedBlock, starts: np.ndarray, n: int) -> dict[int, list[tuple[int, int]]]:
    """Text -> runs (first word, one past the last) that repeated n-grams cover and first occurrences do not."""

    def cover(name: str) -> np.ndarray:
        edges = np.zeros(int(starts[-1]) + 1, np.int32)
        places = _share(folder, name, shard)
        np.add.at(edges, places, 1)
        np.add.at(edges, places + n, -1)
        return np.cumsum(edges)[:-1] > 0

    if not starts[-1]:
        return {}
    cut = cover("repeated") & ~cover("first")
    result: dict[int, list[tuple[int, int]]] = {}
    edges = np.flatnonzero(np.diff(np.concatenate(([False], cut, [False])).astype(np.int8)))
    for a, b in edges.reshape(-1, 2).tolist():
        text = int(np.searchsorted(starts, a, side="right") - 1)
        while a < b:  # a run may go on into the next text
            end = min(b, int(starts[text + 1]))
            if end > a:
                result.setdefault(text, []).append((a - int(starts[text]), end - int(starts[text])))
            a, text = end, text + 1
    return result


def cut(text: str, spans: list[tuple]) -> tuple[str, list[tuple[str, str, int]]]:
    """Take the spans out; returns the text and (rule, cut text, start) of each piece, overlaps counted once."""
    kept, pieces, at = [], [], 0
    for start, end, rule in spans:
        if end <= at:
            continue
        start = max(start, at)
        kept.append(text[at:start])
        pieces.append((rule, text[start:end], start))
        at = end
    kept.append(text[at:])
    return re.sub(r"\n{3,}", "\n\n", "".join(kept)).strip("\n").rstrip(), pieces
