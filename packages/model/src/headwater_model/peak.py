"""The peak that model-FLOPs utilisation is measured against: a plain matrix product on the very device and threads."""

from __future__ import annotations

import time

import headwater_model.cpu as cpu

import torch

SIZE = {"cpu": 2048, "cuda": 8192}


def matmul_flops_per_second(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """What the fastest of repeated square products in `dtype` reaches, on this rank's device and threads.

    Args:
        seconds: how long to try, at least; two products are the least.
    """
    size = SIZE[cpu.DEVICE.type]
    own = torch.Generator().manual_seed(0)  # the run's own generator stays as it is
    a, b = (torch.randn(size, size, generator=own).to(cpu.DEVICE, dtype) for _ in range(2))
    out = torch.empty(size, size, device=cpu.DEVICE, dtype=dtype)
    best, end, done = float("inf"), time.perf_counter() + seconds, 0
    while done < 2 or time.perf_counter() < end:
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        torch.cuda.synchronize()
        best, done = min(best, time.perf_counter() - start), done + 1
    return 2 * size**3 / best
