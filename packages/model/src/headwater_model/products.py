"""fp32 matrix products on AMD processors with AVX-512, where MKL uses half of the vector's width.

torch hands fp32 products to MKL, which keeps its AVX-512 code for Intel's processors; oneDNN, which comes with torch as
well, does not. Measured on one core of a Zen 5, 4,096 x 256 by 256 x 768: MKL 107 GFLOP/s, oneDNN 220. bf16
products go to oneDNN anyway.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

SMALLEST = 1 << 20  # multiplications; below, the way there costs more


def _mkl_is_slow() -> bool:
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in processor and "avx512f" in processor and torch.backends.mkldnn.is_available()


SLOW = _mkl_is_slow()


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """`torch.matmul(a, b, out=out)`, for what needs no gradient of torch's."""
    if not _faster(a, b):
        return torch.matmul(a, b, out=out)
    # oneDNN's linear layer: rows of a against rows of b's transpose, which it also reads across, as they lie: without
    # copies the gradients of a layer's input and weight (1,264 x 320 by 1,728) take 6.1 and 8.0 ms for 7.2 and 8.6.
    a = a if a.dim() == 2 else a.contiguous()
    found = torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    return found if out is None else out.copy_(found)


def _faster(a: Tensor, b: Tensor) -> bool:
    return (
        SLOW
        and a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and a.dim() > 1
        and b.dim() == 2
        and a.numel() * b.size(1) >= SMALLEST
        and not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad))
    )
