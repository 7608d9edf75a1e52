"""Megatron distributed checkpoints that can be trusted: whole or not there, checked by hash, two kept.

A run's checkpoints lie in one folder as `step-00000100/`. Each is written aside, every file hashed into
`sha256.json`, flushed, and renamed; so a folder with the right name is complete unless the disk changed it
later, and then its hashes say so: Megatron itself loads a flipped bit without a word.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from torch.distributed.checkpoint.metadata import StorageMeta

from ._contracts import manifest as artefacts
from ._contracts.errors import UserError

HASHES = "sha256.json"


def write(folder: Path, state: dict[str, Any]) -> None:
    """Save a sharded state dict into `folder`, made if need be; collective over all ranks."""
    if dist.get_rank() == 0:
        Path(folder).mkdir(parents=True, exist_ok=True)
    dist.barrier()
    with cpu.on_device(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Megatron uses a class of torch's that has a successor
        dist_checkpointing.save(state, str(folder), sharded_strategy=_SaveInProcess("torch_dist", 1))


def read(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Fill a sharded state dict from `folder`; collective over all ranks.

    Raises:
        UserError: nothing readable there, or weights of another shape.
    """
    try:
        with cpu.on_device(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dist_checkpointing.load(state, str(folder))
    # CheckpointException of torch derives from BaseException.
    except (CheckpointingException, dcp.api.CheckpointException, OSError, RuntimeError, KeyError) as e:
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise UserError(f"{folder}: not a checkpoint of this model ({reason}); make it again") from None


def save_step(root: Path, step: int, save: Callable[[Path], None], keep: int = 2) -> Path:
    """Make `root/step-N` whole or not at all, then drop all but the newest `keep`; collective.

    Args:
        save: writes the checkpoint's files into the folder it is given, on every rank.
    """
    target, beside = root / f"step-{step:08d}", root / f".step-{step:08d}.new"
    if dist.get_rank() == 0:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    dist.barrier()
    save(beside)
    dist.barrier()
    if dist.get_rank() == 0:
        hashes = {name: artefacts.sha256_file(beside / name) for name in _files(beside)}
        artefacts.write_atomic(beside / HASHES, artefacts.canonical_json(hashes))
        for name in hashes:
            artefacts.fsync(beside / name)
        artefacts.fsync(beside)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(beside, target)
        artefacts.fsync(root)
        for old in steps(root)[:-keep]:
            shutil.rmtree(old)
    dist.barrier()
    return target


def newest_good(root: Path, log: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose every file has its hash; damaged ones are named in the log and removed.

    Collective: rank 0 looks, the others are told.
    """
    box: list[str | None] = [None]
    if dist.get_rank() == 0:
        for folder in reversed(steps(root)):
            fault = damage(folder)
            if fault is None:
                box = [str(folder)]
                break
            log(f"{folder.name} is damaged ({fault}); going back to the one before")
            shutil.rmtree(folder)
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return Path(box[0]) if box[0] else None


def steps(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, oldest first."""
    return sorted(p for p in root.glob("step-*") if p.is_dir())


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        hashes = json.loads((folder / HASHES).read_text())
    except (OSError, ValueError):
        return f"no readable {HASHES}"
    for name, digest in hashes.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if artefacts.sha256_file(folder / name) != digest:
            return f"{name} has changed"
    return None


def _files(folder: Path) -> list[str]:
    """Every file, `.metadata` too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


class _SaveInProcess(TorchDistSaveShardedStrategy):
    """Megatron's format, written by torch's own writer in this process.

    Megatron's writer starts a manager and two worker processes for each save (2 s for a model that takes
    20 ms to write), and both writers stamp a random id and the machine's path into the metadata.
    """

    def save(self, sharded_state_dict: Any, checkpoint_dir: Any) -> None:
        state, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict, self.keep_only_main_replica)
        dcp.save(
            mcore_to_pyt_state_dict(state, False),
            storage_writer=_Writer(checkpoint_dir, single_file_per_rank=True, thread_count=1),
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


class _Writer(dcp.FileSystemWriter):
    def storage_meta(self) -> StorageMeta:
        return StorageMeta()
