"""One rank's part of a checkpoint: planned with the other ranks, copied out of the training state, written alone.

Megatron's format (torch_dist), in four steps, so that the third needs no other rank and can run beside training:

    plan    together: which rank writes which shard (replicas over data-parallel ranks share the work)
    copy    each shard into host memory; training may go on
    write   each rank its own file, flushed and hashed
    finish  rank 0, when all have written: the index, and last the file that Megatron takes for the mark of a whole one

Megatron's own asynchronous writer starts a manager and worker processes for each save (2 s for a model that takes 20 ms
to write), its persistent worker hangs without CUDA, and both stamp a random id and the machine's path into the index.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedStateDict, ShardedTensor
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    determine_main_replica_uniform_distribution,
    distribute_main_replicas_with_precomputed_distribution,
)
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.checkpoint.utils import _DistWrapper

from ._contracts import manifest as artefacts
from ._contracts.errors import UserError
from ._contracts.stage import explain_os_error
from .optimizer_state import is_stand_in

COMMON = "common.pt"


@dataclass(frozen=True)
class Part:
    """What one rank wrote."""

    results: list[WriteResult] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    """File -> sha256."""
    fault: str | None = None
    """Why it could not."""


class Snapshot:
    """A sharded state dict on its way to `folder`."""

    def __init__(
        self,
        folder: Path,
        state: ShardedStateDict,
        copy: bool,
        share: bool = False,
        own: Mapping[str, bytes] | None = None,
    ):
        """Plan and copy; collective.

        Args:
            folder: exists on every rank's file system, which is one.
            copy: take a copy, so that the state may change before `write`.
            share: let data-parallel ranks share in what they all hold, instead of the first writing it all.
            own: name -> content of further files of this rank.
        """
        self._own = dict(own or {})
        self._first = dist.get_rank() == 0
        self._writer = _Writer(folder, single_file_per_rank=True, thread_count=1)
        self._folder = Path(folder)
        with cpu.on_device(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Megatron uses a class of torch's that has a successor
            sharded, common = save_preprocess(state)
            if share and parallel_state.get_data_parallel_world_size(with_context_parallel=True) > 1:
                _spread(sharded)
            grouped, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded, keep_only_main_replica=True)
            planner = MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False)
            self._plan = self._agree(planner, mcore_to_pyt_state_dict(grouped, False))
            self._values = {item.index: _copied(planner.resolve_data(item), copy) for item in self._plan.items}
        self._common = _saved(common) if self._first else b""

    def write(self) -> Part:
        """Write this rank's files; no other rank is needed, nor the training state. A fault is answered, not raised."""
        try:
            results = self._writer.write_data(self._plan, self).value()  # type: ignore[arg-type]
            names = sorted({result.storage_data.relative_path for result in results})
            if self._first:
                artefacts.write_atomic(self._folder / COMMON, self._common)
                names.append(COMMON)
            for name, content in self._own.items():
                artefacts.write_atomic(self._folder / name, content)
                names.append(name)
            return Part(results, {name: artefacts.sha256_file(self._folder / name) for name in names})
        except Exception as e:  # whatever it is, the other ranks must hear of it
            return Part(fault=_why(e))

    def finish(self, parts: list[Part]) -> dict[str, str]:
        """Write the index of what all ranks wrote; rank 0 alone. Answers the sha256 of what they wrote."""
        self._writer.finish(self._metadata, [part.results for part in parts])
        save_config(CheckpointingConfig("torch_dist", 1), str(self._folder))
        return {name: digest for part in parts for name, digest in part.hashes.items()}

    def resolve_data(self, item: WriteItem) -> Any:
        """Torch's writer asks for each tensor here."""
        return self._values[item.index]

    def _agree(self, planner: MCoreSavePlanner, state: dict[str, Any]) -> SavePlan:
        """Torch's own planning (`torch.distributed.checkpoint.save`), without the writing."""

        def own() -> SavePlan:
            planner.set_up_planner(state, self._writer.storage_meta(), self._first)
            self._writer.set_up_storage_writer(self._first)
            return self._writer.prepare_local_plan(planner.create_local_plan())

        def all_of_them(plans: list[SavePlan]) -> list[SavePlan]:
            plans, self._metadata = planner.create_global_plan(plans)
            return self._writer.prepare_global_plan(plans)

        self._metadata = Metadata(state_dict_metadata={})
        return planner.finish_plan(_DistWrapper(None, True, 0).reduce_scatter("plan", own, all_of_them))


def gather(part: Part) -> list[Part]:
    """Every rank's part, on every rank; collective.

    Raises:
        UserError: a rank could not write.
    """
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    for rank, other in enumerate(parts):
        if other.fault:
            raise UserError(f"rank {rank} could not write its part of a checkpoint: {other.fault}")
    return parts


def on_first(work: Callable[[], Any]) -> Any:
    """Let rank 0 do `work` and tell the others how it went; collective.

    Returns:
        On rank 0 what `work` answered, elsewhere None.

    Raises:
        UserError: it failed there, on every rank.
    """
    answer, box = None, [None]
    if dist.get_rank() == 0:
        try:
            answer = work()
        except (OSError, RuntimeError) as e:  # what disks and torch's writers raise
            box = [_why(e)]  # type: ignore[list-item]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    if box[0] is not None:
        raise UserError(box[0])
    return answer


class _Writer(dcp.FileSystemWriter):
    def storage_meta(self) -> StorageMeta:
        return StorageMeta()


def _spread(sharded: ShardedStateDict) -> None:
    """Megatron's even spread of replicas over data-parallel ranks (`FullyParallelSaveStrategyWrapper`).

    Only ranks that hold a tensor may be told to write it: of ZeRO's moments all but one have stand-ins.
    """
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    held = {
        number: part
        for number, part in enumerate(nested_values(sharded))
        if isinstance(part, ShardedTensor) and not (part.data is not None and is_stand_in(part.data))
    }
    spread = determine_main_replica_uniform_distribution(held, group)
    distribute_main_replicas_with_precomputed_distribution(held, group, spread)


def _copied(value: Any, copy: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    if value.is_cuda:  # GPU only: the copy to the host is the snapshot
        return value.cpu()
    return value.clone() if copy else value


def _saved(common: dict[str, Any]) -> bytes:
    """Megatron's common.pt, made at once: the dictionaries in it change with the next step."""
    stream = io.BytesIO()
    torch.save(common, stream)
    return stream.getvalue()


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(explain_os_error(error, "checkpoint"))
    return " ".join(str(error).split())[:200] or type(error).__name__
