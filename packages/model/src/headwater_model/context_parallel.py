"""Context parallelism: each rank holds a part of every sequence, and attention alone looks at the whole.

A sequence is cut into 2 x ranks equal pieces, of which rank r takes piece r and piece 2 x ranks - 1 - r: an early one,
whose queries see little, and a late one, whose queries see much, so that causal attention costs every rank the same
(Llama 3, arXiv:2407.21783, section 3.3.2). There keys and values are gathered from all ranks, and their gradients
summed back, as in the paper; the rest of the model works position by position and needs no word from other ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from torch import Tensor

from ._contracts.errors import UserError
from .positions import positions


def places(size: int, rank: int, ranks: int) -> Tensor:
    """The positions that a context rank holds of a sequence of `size`, in the order in which it holds them.

    Returns:
        int64 [size / ranks]
    """
    early, late = torch.arange(size).view(2 * ranks, -1)[[rank, 2 * ranks - 1 - rank]]
    return torch.cat([early, late])


def cut(batch: Mapping[str, Tensor], inputs: Collection[str], rank: int, ranks: int) -> dict[str, Tensor]:
    """A context rank's part of a micro-batch.

    Args:
        batch: entries [sequences, positions] are cut; "attention_mask" keeps all its keys and becomes bool
            [sequences, 1, positions of the rank, positions] where it names segments; what has no positions stays.
        inputs: names of the entries that the model takes. "position_ids" are added, counted in each segment.

    Raises:
        UserError: positions that can't be cut evenly, or an entry that the model takes and that has no positions
            and so speaks of the whole sequence.
    """
    size = batch["tokens"].size(1)
    if size % (2 * ranks):
        raise UserError(f"{size} positions are no multiple of 2 x parallel.context {ranks}; change the length of rows")
    mine = places(size, rank, ranks).to(batch["tokens"].device)
    mask = batch.get("attention_mask")
    whole = dict(batch)
    if "position_ids" in inputs and "position_ids" not in batch:
        if mask is not None and mask.dim() == 2:
            whole["position_ids"] = positions_in(mask)
        else:
            whole["position_ids"] = positions(size, mask, 0, mine.device).expand(len(batch["tokens"]), -1)
    found = {}
    for name, entry in whole.items():
        if name == "attention_mask" and entry.dim() == 2:
            later = torch.arange(size, device=entry.device) > mine[:, None]
            found[name] = (later | (entry[:, mine, None] != entry[:, None, :]))[:, None]
        elif name == "attention_mask":
            found[name] = entry[:, :, mine]
        elif entry.dim() >= 2 and entry.size(1) == size:
            found[name] = entry[:, mine].contiguous()
        elif name in inputs:
            raise UserError(f"a batch with {name!r} speaks of whole sequences; set parallel.context 1")
        else:
            found[name] = entry
    return found


def positions_in(segments: Tensor) -> Tensor:
    """The place of each position in its own segment, from 0.

    Args:
        segments: integers [sequences, positions], equal within a segment.

    Returns:
        int64 [sequences, positions]
    """
    count = torch.arange(segments.size(1), device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return count - torch.where(begins, count, 0).cummax(1).values


def attend(
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    group: dist.ProcessGroup,
) -> Tensor:
    """Attention of this rank's queries to the keys of all ranks.

    Args:
        attention: of queries to keys of which the last stands where the last query does; without a mask causal.
        query, key, value: [positions of the rank, sequences, heads, width].
        mask: bool [sequences or 1, 1, positions of the rank, positions], True where masked, no key after its query
            being visible; None: causal.

    Returns:
        [positions of the rank, sequences, heads x width]
    """
    ranks, rank = group.size(), group.rank()
    size = query.size(0) // 2
    gathered = gather_from_sequence_parallel_region(torch.cat([key, value], -1), group=group)
    held = torch.stack([torch.arange(ranks), 2 * ranks - 1 - torch.arange(ranks)], 1).flatten()
    pieces = gathered.view(2 * ranks, size, *gathered.shape[1:])[held.argsort().to(gathered.device)].flatten(0, 1)
    keys, values = pieces.split([key.size(-1), value.size(-1)], -1)
    found = []
    for rows, piece in ((slice(size), rank), (slice(size, None), 2 * ranks - 1 - rank)):
        end = (piece + 1) * size
        seen = None if mask is None else mask[:, :, rows, :end]
        found.append(attention(query[rows], keys[:end], values[:end], seen))
    return torch.cat(found)
