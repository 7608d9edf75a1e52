"""`headwater-model check-nodes`: is every node fit to train on? By itself, or a rank a device under torchrun or srun.

A slow device slows every step, a silent error spoils the run, a bad disk loses the checkpoint, so look before starting:

    matmul   speed under load, and exactness: products of integer matrices against Freivalds' check (1977)
    memory   what the run needs can be allocated and holds what is written; speed of a copy
    link     an all-reduce's sum is exact; exchange with other nodes' ranks, bit for bit, each with several partners:
             a node is judged by its best partner, so that a good node does not suffer for a bad one
    disk     write, flush, read back past the cache, by hash; room for the checkpoints
    clock    against rank 0's
    GPU      uncorrected memory errors and slow-downs that nvidia-smi knows

`cordon` judges the figures. Nothing of the model is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist

from . import cordon, runtime
from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from .config import ParallelConfig
from .planning import hardware
from .planning.tables import table

SIZE = 8192 if cpu.HAS_CUDA else 1024
"""Rows and columns of the matrices."""
COPY_MB = 1024 if cpu.HAS_CUDA else 64
LINK_MB = 256 if cpu.HAS_CUDA else 8
DISK_MB = 64
ROUNDS = 3
"""Partners of a node at most."""


def run(args: argparse.Namespace) -> None:
    """Entry point of the command, on every rank.

    Raises:
        UserError: on rank 0, a node is cordoned.
    """
    world = int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)
    runtime.initialize(ParallelConfig(data=world))
    try:
        reports, rank = check(args.seconds, args.memory_gb, args.disk, args.checkpoint_gb), dist.get_rank()
    except RuntimeError as e:  # a peer that is gone
        raise UserError(f"the check did not finish: {' '.join(str(e).split())[:200]}; see which node is gone") from None
    finally:
        runtime.shutdown()
    if rank:
        return
    found = cordon.judge(reports, cordon.Limits(matmul=least_matmul(args.device), clock_s=args.clock_s))
    listed = cordon.update(args.out, found)
    write_atomic(args.out, canonical_json({**listed, "measured": reports}))
    print(shown(reports, found))
    bad = [entry["node"] for entry in listed["cordoned"]]
    if bad:
        print(f"srun --exclude={','.join(bad)}")
        raise UserError(f"{sum(map(bool, found.values()))} of {len(found)} nodes should not be used; see {args.out}")


def check(seconds: float, memory_gb: float, disk: Path, checkpoint_gb: float) -> list[dict[str, Any]]:
    """Measure on every rank; collective.

    Args:
        seconds: of matrix products.
        memory_gb: that a rank's training needs.
        disk: folder on the disk of the checkpoints.
        checkpoint_gb: that is to fit there.

    Returns:
        Every rank's report, by rank, on every rank.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    names = _everyones(os.environ.get("SLURMD_NODENAME") or socket.gethostname())
    peers = [r for r in range(world) if names[r] == names[rank]]
    report: dict[str, Any] = {"node": names[rank], "rank": rank, "device": _device(), "faults": []}

    def attempt(work: Callable[[], dict[str, Any]]) -> None:
        """A fault of one rank must not keep it from the collectives that follow."""
        try:
            report.update(work())
        except (OSError, RuntimeError, MemoryError, _Fault) as e:
            report["faults"].append(" ".join(str(e).split())[:200] or type(e).__name__)

    report |= dict.fromkeys(cordon.SPEEDS)
    attempt(lambda: _matmul(seconds))
    attempt(lambda: _memory(memory_gb, len(peers)))
    if rank == peers[0]:
        attempt(lambda: _disk(disk, checkpoint_gb))
    attempt(_gpu)
    dist.barrier()
    report |= {"clock_s": _clock()}
    _link(report, names)
    return _everyones(report)


def least_matmul(device: str | None) -> float | None:
    """TFLOP/s that a product of large matrices should reach: what training sustains on the device, by the table."""
    if device is None:
        return None
    found = hardware.load(device)
    peak = found.flops if cpu.HAS_CUDA else found.flops_fp32
    return found.matmul_fraction * peak / 1e12


def shown(reports: list[dict[str, Any]], found: dict[str, list[str]]) -> str:
    """The table for people, a line a node, and why the cordoned ones are."""
    rows = []
    for node, reasons in found.items():
        ranks = [report for report in reports if report["node"] == node]
        speeds = cordon.slowest(ranks)
        clock = max((abs(report["clock_s"]) for report in ranks), default=0.0)
        figures = [f"{speeds[speed]:.3g}" if speed in speeds else "-" for speed in cordon.SPEEDS]
        rows.append([node, str(len(ranks)), *figures, f"{clock * 1000:.1f}", "cordoned" if reasons else "good"])
    heads = [f"{speed.replace('_', ' ')} {unit}" for speed, (unit, _) in cordon.SPEEDS.items()]
    lines = [table(["node", "ranks", *heads, "clock ms", ""], rows)]
    return "\n".join([*lines, *(f"{node}: {'; '.join(reasons)}" for node, reasons in found.items() if reasons)])


class _Fault(Exception):
    """Something that a node should not do."""


def _matmul(seconds: float) -> dict[str, Any]:
    """TFLOP/s of the best product in `seconds`, in bfloat16 on a GPU; float32 products of integers are exact."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    whole = [torch.randint(-4, 5, (SIZE, SIZE), generator=generator).float().to(cpu.DEVICE) for _ in range(2)]
    timed = [matrix.bfloat16() for matrix in whole] if cpu.HAS_CUDA else whole
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end or best == float("inf"):
        best = min(best, _seconds(lambda: torch.mm(*timed)))
    product = torch.mm(*whole)
    probe = torch.randint(-1, 2, (SIZE, 16), generator=generator).double().to(cpu.DEVICE)
    a, b = (matrix.double() for matrix in whole)
    if not torch.equal(product.double() @ probe, a @ (b @ probe)):
        raise _Fault("a product of integer matrices is wrong")
    return {"matmul": 2 * SIZE**3 / best / 1e12}


def _memory(need_gb: float, ranks: int) -> dict[str, Any]:
    free = torch.cuda.mem_get_info()[0] / 1e9 if cpu.HAS_CUDA else _available_gb() / ranks
    if need_gb > free:
        raise _Fault(f"{need_gb:g} GB of memory a rank are needed, {free:.1f} are free")
    block = 1 << 26  # int32 elements: 256 MB
    pattern = torch.arange(block, dtype=torch.int32, device=cpu.DEVICE)
    held = [pattern ^ number for number in range(max(1, round(need_gb * 1e9 / (4 * block))))]
    if not all(torch.equal(values ^ number, pattern) for number, values in enumerate(held)):
        raise _Fault("memory does not hold what is written to it")
    source = torch.ones(COPY_MB << 18, device=cpu.DEVICE)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source)) for _ in range(8))
    return {"memory": 2 * source.numel() * 4 / best / 1e9}


def _disk(folder: Path, checkpoint_gb: float) -> dict[str, Any]:
    free = shutil.disk_usage(folder).free / 1e9
    if free < checkpoint_gb:
        raise _Fault(f"{checkpoint_gb:g} GB of checkpoints are to fit into {folder}, {free:.1f} are free")
    path = folder / f".check-nodes-{socket.gethostname()}-{os.getpid()}"
    try:
        rounds = [_write_and_read(path) for _ in range(3)]
    finally:
        path.unlink(missing_ok=True)
    writing, reading = (min(times) for times in zip(*rounds, strict=True))
    return {"disk_write": DISK_MB / 1e3 / writing, "disk_read": DISK_MB / 1e3 / reading}


def _write_and_read(path: Path) -> tuple[float, float]:
    """Seconds of each."""
    block = os.urandom(1 << 20)
    written, read = hashlib.sha256(), hashlib.sha256()
    with open(path, "wb", buffering=0) as f:
        since = time.monotonic()
        for number in range(DISK_MB):
            f.write(chunk := block[number:] + block[:number])
            written.update(chunk)
        os.fsync(f.fileno())
        writing = time.monotonic() - since
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else memory would answer for the disk
    with open(path, "rb", buffering=0) as f:
        since = time.monotonic()
        while chunk := f.read(1 << 20):
            read.update(chunk)
        reading = time.monotonic() - since
    if written.digest() != read.digest():
        raise _Fault(f"the disk of {path.parent} gives back other bytes than were written")
    return writing, reading


def _link(report: dict[str, Any], names: list[str]) -> None:
    """Sum over all ranks, then exchange in pairs: with the rank of the same place on other nodes, if there are any."""
    rank, world = report["rank"], len(names)
    if world == 1:
        return
    values = torch.arange(LINK_MB << 18, device=cpu.DEVICE) % 1000
    total = (values + rank).float()
    dist.all_reduce(total)
    if not torch.equal(total, (values * world + world * (world - 1) // 2).float()):
        report["faults"].append("the sum of an all-reduce is wrong")
    groups: dict[str, list[int]] = {}
    for other, name in enumerate(names):
        groups.setdefault(name, []).append(other)
    sides = list(groups.values()) if len(groups) > 1 else [[other] for other in range(world)]
    speeds, wrong = [], []
    for pairs in cordon.pairings(len(sides), ROUNDS):
        dist.barrier()
        partner = next((b for one, two in pairs for a, b in _facing(sides[one], sides[two]) if a == rank), None)
        if partner is None:
            continue
        sent, got = (values + rank).float(), torch.empty(values.numel(), device=cpu.DEVICE)
        seconds = min(_seconds(partial(_exchange, sent, got, partner)) for _ in range(3))
        speeds.append(got.numel() * 4 / seconds / 1e9)
        wrong.append(not torch.equal(got, (values + partner).float()))
    if speeds:
        report["link"] = max(speeds)
    if wrong and all(wrong):
        report["faults"].append("bytes arrive changed, from every partner")


def _facing(left: list[int], right: list[int]) -> list[tuple[int, int]]:
    """Who exchanges with whom, both ways round."""
    pairs = list(zip(left, right, strict=False))
    return pairs + [(b, a) for a, b in pairs]


def _exchange(sent: torch.Tensor, got: torch.Tensor, partner: int) -> None:
    works = dist.batch_isend_irecv([dist.P2POp(dist.isend, sent, partner), dist.P2POp(dist.irecv, got, partner)])
    for work in works:
        work.wait()


def _clock() -> float:
    """This rank's clock against rank 0's in seconds, known to half a round trip (as NTP does it); collective."""
    group = dist.new_group(backend="gloo")
    rank, offset = dist.get_rank(), torch.zeros(1, dtype=torch.float64)
    for other in range(1, dist.get_world_size()):
        theirs = torch.zeros(1, dtype=torch.float64)
        if rank == 0:
            best = float("inf")
            for _ in range(4):
                sent = time.time()
                dist.send(theirs, other, group=group)
                dist.recv(theirs, other, group=group)
                back = time.time()
                if back - sent < best:
                    best, found = back - sent, theirs.item() - (sent + back) / 2
            dist.send(torch.tensor([found], dtype=torch.float64), other, group=group)
        elif rank == other:
            for _ in range(4):
                dist.recv(theirs, 0, group=group)
                dist.send(torch.tensor([time.time()], dtype=torch.float64), 0, group=group)
            dist.recv(offset, 0, group=group)
    dist.destroy_process_group(group)
    return float(offset.item())


def _gpu() -> dict[str, Any]:
    """GPU only: what the driver holds against the device."""
    if not cpu.HAS_CUDA:
        return {}
    asked = "ecc.errors.uncorrected.volatile.total,clocks_throttle_reasons.hw_slowdown"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader,nounits", "-i", str(torch.cuda.current_device())],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    errors, slow = (value.strip() for value in done.stdout.strip().split(","))
    if errors.isdigit() and int(errors):
        raise _Fault(f"{errors} uncorrected memory errors")
    if slow == "Active":
        raise _Fault("slowed down by its hardware: heat or power")
    return {}


def _seconds(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    since = time.monotonic()
    work()
    torch.cuda.synchronize()
    return time.monotonic() - since


def _everyones(value: Any) -> list[Any]:
    box: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def _device() -> str:
    return torch.cuda.get_device_name() if cpu.HAS_CUDA else "cpu"


def _available_gb() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise _Fault("/proc/meminfo does not say how much memory is free")
