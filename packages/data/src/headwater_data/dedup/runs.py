"""Sorted runs on disk: what is too much to sort in memory is sorted block by block and merged range by range.

A run is a block's hashes in ascending order with their places beside them, as `.npy` files that are mapped, not read:
to merge one range of hashes takes the memory of that range alone. Hashes are uniform, so equal ranges hold equal
amounts.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

RANGE_ENTRIES = 1 << 23
"""Entries that one merge may hold: about 400 MB at its peak."""


def save_array(path: Path, values: np.ndarray) -> None:
    """Write one array atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(beside, "wb") as f:
        np.save(f, values, allow_pickle=False)
    os.replace(beside, path)


def map_array(path: Path) -> np.ndarray:
    """An array as it lies on disk; pages come in as they are touched."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def write_run(folder: Path, number: int, keys: np.ndarray, places: np.ndarray) -> None:
    """Sort and write one block's run.

    Args:
        keys: (lists, entries) uint64: several lists that are merged one by one, as LSH's bands.
        places: (entries,), an unsigned integer each: what the keys belong to.
    """
    order = np.argsort(keys, axis=1, kind="stable")
    save_array(folder / f"{number:05d}.keys.npy", np.take_along_axis(keys, order, axis=1))
    save_array(folder / f"{number:05d}.places.npy", places[order])


def ranges(entries: int) -> int:
    """Into how many ranges of hashes a merge of so many entries is cut."""
    return max(-(-entries // RANGE_ENTRIES), 1)


def merge_runs(
    folder: Path, offsets: dict[int, int], which: int, part: int, parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """One range of one list over all runs.

    Args:
        offsets: number of a run -> what its places start at in the whole corpus, in ascending order.
        which: the list.
        part, parts: the range: this one of so many.

    Returns:
        (entries,) uint64 keys in ascending order, and (entries,) int64 places, ascending where keys are equal.
    """
    low, high = (part << 64) // parts, ((part + 1) << 64) // parts
    keys, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for number, offset in offsets.items():
        run = map_array(folder / f"{number:05d}.keys.npy")[which]
        start = int(np.searchsorted(run, np.uint64(low)))
        end = len(run) if high > 0xFFFFFFFFFFFFFFFF else int(np.searchsorted(run, np.uint64(high)))
        if end > start:
            keys.append(np.array(run[start:end]))
            places.append(map_array(folder / f"{number:05d}.places.npy")[which, start:end].astype(np.int64) + offset)
    merged = np.concatenate(keys)
    order = np.argsort(merged, kind="stable")
    return merged[order], np.concatenate(places)[order]


def groups(keys: np.ndarray) -> np.ndarray:
    """Of sorted keys, the index of the first of its equals for every entry: (entries,) int64."""
    if not len(keys):
        return np.zeros(0, np.int64)
    new = np.concatenate(([True], keys[1:] != keys[:-1]))
    return np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
