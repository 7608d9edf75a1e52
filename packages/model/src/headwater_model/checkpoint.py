"""Megatron distributed checkpoints that can be trusted: whole or not there, checked by hash.

A run's checkpoints lie in one folder as `step-00000100/`. Each is written aside, every file hashed into
`sha256.json`, flushed, and renamed; so a folder with the right name is complete unless the disk changed it
later, and then its hashes say so: Megatron itself loads a flipped bit without a word.

`save_step` writes one at once; `saver.Saver` writes them beside training and keeps them by a policy.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException

from ._contracts import manifest as artefacts
from ._contracts.errors import UserError
from .snapshot import Snapshot, gather, on_first

HASHES = "sha256.json"
ABOUT = "checkpoint.json"
"""Step, held-out loss and model of a checkpoint: what the policy and a reader want to know without loading it."""


def write(folder: Path, state: dict[str, Any], own: Mapping[str, bytes] | None = None) -> None:
    """Save a sharded state dict into `folder`, made if need be; collective over all ranks.

    Args:
        own: name -> content of further files of this rank.

    Raises:
        UserError: the disk is full or fails, on every rank.
    """
    on_first(lambda: Path(folder).mkdir(parents=True, exist_ok=True))
    snapshot = Snapshot(folder, state, copy=False, own=own)
    parts = gather(snapshot.write())
    on_first(lambda: snapshot.finish(parts))


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
    target, beside = place(root, step), aside(root, step)
    on_first(lambda: prepare(beside))
    try:
        save(beside)
    except UserError:
        on_first(lambda: shutil.rmtree(beside, ignore_errors=True))
        raise
    dist.barrier()

    def end() -> None:
        seal(beside)
        publish(beside, target)
        for old in steps(root)[:-keep]:
            shutil.rmtree(old)

    on_first(end)
    return target


def place(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"step-{step:08d}"


def aside(root: Path, step: int) -> Path:
    """Where it lies while it is written."""
    return root / f".step-{step:08d}.new"


def prepare(beside: Path) -> None:
    """An empty folder to write into."""
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write the hashes of all files, last of all.

    Args:
        known: file -> sha256 of files that are flushed already.
    """
    hashes = dict(known or {})
    for name in set(_files(folder)) - set(hashes):
        hashes[name] = artefacts.sha256_file(folder / name)
        artefacts.fsync(folder / name)
    artefacts.write_atomic(folder / HASHES, artefacts.canonical_json(hashes))
    artefacts.fsync(folder)


def publish(beside: Path, target: Path) -> None:
    """Give a sealed folder its name; one of that name makes way."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
    os.rename(beside, target)
    artefacts.fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def newest_good(root: Path, log: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose every file has its hash; damaged ones are named in the log and set aside.

    Collective: each rank hashes its share of the files.
    """
    while True:
        box = [steps(root)[-1:]]
        if dist.get_world_size() > 1:
            dist.broadcast_object_list(box, src=0)  # one rank's view of the folder
        if not box[0]:
            return None
        newest = box[0][0]
        faults: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(faults, damage(newest, dist.get_rank(), dist.get_world_size()))
        fault = next(filter(None, faults), None)
        if fault is None:
            return newest
        log(f"{newest.name} is damaged ({fault}); going back to the one before")
        on_first(partial(_set_aside, newest))


def steps(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, oldest first."""
    return sorted(p for p in root.glob("step-*") if p.is_dir())


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(folder.name.removeprefix("step-"))


def damage(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """What is wrong with a checkpoint's files, or None.

    Args:
        part: look at every `parts`-th file only, from this one on.
    """
    try:
        hashes = dict(json.loads((folder / HASHES).read_text()))
    except (OSError, ValueError, TypeError):
        return f"no readable {HASHES}"
    if unknown := sorted(set(_files(folder)) - set(hashes) - {HASHES}):
        return f"{unknown[0]} has no hash"
    if not hashes:
        return "it is empty"
    for name in sorted(hashes)[part::parts]:
        try:
            if artefacts.sha256_file(folder / name) != hashes[name]:
                return f"{name} has changed"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as e:
            return f"{name} cannot be read: {e.strerror}"
    return None


def refuse_other(folder: Path, model: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another model, before anything is loaded.

    Args:
        model: the resolved config of the model at hand.

    Raises:
        UserError: naming the fields that differ.
    """
    there = read_about(folder).get("model")
    if there is None:
        return
    fields = sorted(set(there) | set(model))
    other = [f"{f} is {there.get(f)} there and {model.get(f)} here" for f in fields if there.get(f) != model.get(f)]
    if other:
        raise UserError(f"{folder}: a checkpoint of another model: {'; '.join(other)}; use its config, or start anew")


def read_about(folder: Path) -> dict[str, Any]:
    """What `Saver` wrote of a checkpoint; empty for one that was not written by it."""
    try:
        return json.loads((folder / ABOUT).read_text())
    except FileNotFoundError:
        return {}


def _set_aside(folder: Path) -> None:
    """A damaged checkpoint is kept for whoever wants to know why, until the next one is damaged."""
    for before in folder.parent.glob("damaged-*"):
        shutil.rmtree(before)
    os.rename(folder, folder.with_name(f"damaged-{folder.name}"))


def _files(folder: Path) -> list[str]:
    """Every file, `.metadata` too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
