"""The final state of a run in one folder that can be checked, and from which training goes on exactly.

    state/            Megatron distributed checkpoint: weights, optimiser, schedule, step, generators
    config.json       every setting of the run, model included
    data.json         where in the data the run stands, and which data: sequences seen, seed, hash of the tokens
    environment.json  what it ran on and with: packages, Python, processor, memory, GPUs, torch's build, git revision
    sha256.json       of all of them

No time, path, host or user name: two runs alike on one machine leave the same bytes, however often one was killed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch

from . import checkpoint
from ._contracts import manifest as artefacts
from ._contracts.errors import UserError
from ._contracts.stage import code_hash
from .snapshot import on_first

STATE, CONFIG, DATA, ENVIRONMENT = "state", "config.json", "data.json", "environment.json"
_PACKAGE = Path(__file__).parent
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING", "GLIBC_TUNABLES", "KMP_AFFINITY",
    "MALLOC_ARENA_MAX", "MKL_CBWR", "MKL_NUM_THREADS", "NCCL_ALGO", "NCCL_IB_DISABLE", "NCCL_NVLS_ENABLE",
    "NCCL_P2P_DISABLE", "NCCL_PROTO", "NVTE_ALLOW_NONDETERMINISTIC_ALGO", "NVTE_FLASH_ATTN", "OMP_NUM_THREADS",
    "OMP_PROC_BIND", "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_NCCL_AVOID_RECORD_STREAMS",
)  # fmt: skip
"""Variables that change what is computed or how fast; none that holds a path, a host or a secret."""


def write(
    folder: Path,
    save: Callable[[Path], None],
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    threads: int | None = None,
) -> None:
    """Fill the new `folder`; collective.

    Args:
        save: writes a distributed checkpoint into the folder it is given (`Trainer.save`).
        config: resolved settings.
        data: position and identity of the data.
        threads: a rank computes with; torch's own count if None.

    Raises:
        UserError: the disk is full or fails.
    """
    folder = Path(folder)
    save(folder / STATE)

    def describe() -> None:
        texts = {CONFIG: config, DATA: data, ENVIRONMENT: environment(threads)}
        for name, value in texts.items():
            artefacts.write_atomic(folder / name, artefacts.canonical_json(value))
        checkpoint.seal(folder)

    on_first(describe)


def verify(folder: Path) -> dict[str, Any]:
    """Check every file's hash and answer config, data and environment by these names.

    Raises:
        UserError: naming the first file that is missing, changed or unknown.
    """
    folder = Path(folder)
    if fault := checkpoint.damage(folder):
        raise UserError(f"{folder}: {fault}; restore it from a good copy, or train again")
    missing = [name for name in (STATE, CONFIG, DATA, ENVIRONMENT) if not (folder / name).exists()]
    if missing:
        raise UserError(f"{folder}: {missing[0]} is missing, so this is no final state; it is made by pretrain")
    return {Path(name).stem: json.loads((folder / name).read_text()) for name in (CONFIG, DATA, ENVIRONMENT)}


def environment(threads: int | None = None) -> dict[str, Any]:
    """What a run depends on beside its inputs and settings."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "packages": {
            name: version for name, version in sorted((d.metadata["Name"], d.version) for d in metadata.distributions())
        },
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cpu.HAS_CUDA else [],
        "torch": [line.strip(" -") for line in torch.__config__.show().splitlines() if "Build settings" not in line],
        "threads": threads or torch.get_num_threads(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "code": code_hash("headwater_model"),
        "git": revision(_PACKAGE, _PACKAGE / "_contracts"),
    }


def revision(*folders: Path) -> dict[str, Any] | None:
    """The last commit that changed one of `folders`, and whether files in them differ; None outside of a repository.

    The last commit that changed it, not the newest one: what others commit elsewhere does not change what runs here.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folders[0]), *arguments, "--", *(str(folder.resolve()) for folder in folders)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("log", "-1", "--format=%H")
        return {"revision": commit, "dirty": bool(git("status", "--porcelain"))} if commit else None
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
