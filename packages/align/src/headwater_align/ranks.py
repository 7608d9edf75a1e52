"""How data ranks share a batch: each works on its part, and all know the whole.

What statistics are taken of (answers, scores, log-probabilities, values) is small and brought together on every rank,
so that means, whitening and the KL controller are those of the whole batch, the same on every rank and, but for
rounding, for every number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .engine import cpu, dist, parallel_state, torch

T = TypeVar("T")


def share(rows: Sequence[T]) -> list[T]:
    """Every n-th row for the n-th data rank."""
    return list(rows[parallel_state.get_data_parallel_rank() :: parallel_state.get_data_parallel_world_size()])


def gather(part: T) -> list[T]:
    """Each data rank's part, on all of them; collective."""
    ranks = parallel_state.get_data_parallel_world_size()
    if ranks == 1:
        return [part]
    parts: list[T | None] = [None] * ranks
    dist.all_gather_object(parts, part, group=parallel_state.get_data_parallel_group())
    return parts  # type: ignore[return-value]  # every place was filled


def largest(value: float) -> float:
    """The largest of all ranks' values; collective."""
    if dist.get_world_size() == 1:
        return value
    table = torch.tensor([value], dtype=torch.float64, device=cpu.DEVICE)
    dist.all_reduce(table, op=dist.ReduceOp.MAX)
    return float(table)


def from_first(value: T) -> T:
    """The first rank's value on all ranks; collective."""
    if dist.get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def is_first() -> bool:
    """Whether this rank is the one that writes."""
    return dist.get_rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    dist.barrier()
