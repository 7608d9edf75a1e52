"""What lies between a training step's matrix products on a CPU, each in one pass over memory: `kernels.cpp`.

In eager mode a norm, a gated activation, a rotation or a softmax is five to ten passes over memory, and half of a
step's time goes into them. The C++ compiler that the project asks for anyway builds the library at first use, for the
processor at hand (about two seconds), into the user's cache. Without a compiler, on another device or for another
type every function here is plain torch: the same numbers but for rounding, at the old speed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.nn.functional as F
from megatron.core.transformer.mlp import MLP
from torch import Tensor, nn

from .tree import Tree

SOURCES = [
    Path(__file__).with_name(name)
    for name in ("kernels.h", "kernels_product.h", "kernels.cpp", "kernels_attention.cpp", "kernels_decode.cpp")
]
FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-std=c++17", "-fPIC", "-shared", "-fopenmp",
    # what lets sums be vectorised; -ffast-math would also flush denormals in the whole process
    "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros",
)  # fmt: skip
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


# ---- functions with a gradient


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich, arXiv:1910.07467)."""
    if not usable(x, weight):
        return F.rms_norm(x, weight.shape, weight, eps)
    return _differentiable(_RMSNorm, x.contiguous(), weight, eps)


def swiglu(x: Tensor) -> Tensor:
    """silu(first half) * second half of the last dimension (Shazeer, arXiv:2002.05202)."""
    if not usable(x):
        gate, linear = x.chunk(2, dim=-1)
        return F.silu(gate) * linear
    return _differentiable(_SwiGLU, x.contiguous())


def rotary(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions (Su et al., arXiv:2104.09864) on the first channels of each head, halves paired.

    Args:
        x: [positions, batch, heads, width], the last dimension dense.
        angles: float32 [positions, 1, 1, channels that turn]: both halves hold the same.

    Returns:
        the same shape; laid out as [batch, heads, positions, width], which attention's products want.
    """
    return _differentiable(_Rotary, x, angles.cos(), angles.sin())


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, slopes: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(width)) v of whole sequences, without a [query, key] matrix in memory.

    Args:
        q: [positions, batch, heads, width].
        k, v: [positions, batch, key and value heads, width]; each serves as many neighbouring query heads.
        mask: bool [batch or 1, 1, positions, positions], True where masked, no query without a key; None: causal.
        slopes: float32 [heads]: what a score loses with each position of distance (ALiBi, arXiv:2108.12409).

    Returns:
        [positions, batch, heads x width].
    """
    dense = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    return _differentiable(_Attention, *dense, mask, slopes).flatten(2)


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` on `rms_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> the same shape."""
        return rms_norm(x, self.weight, self.eps)  # type: ignore[arg-type]


class SwiGLU(nn.Module):
    """`swiglu` as a module, for Megatron's MLP."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., 2 x width] -> [..., width]."""
        return swiglu(x)

    def sharded_state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Nothing to save; Megatron asks every part of an MLP."""
        return {}


class _Forgetful:
    """Stands for autograd's context where nothing will ask for a gradient: `apply` costs ten times a small kernel."""

    def save_for_backward(self, *_: Any) -> None:
        pass


def _differentiable(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    if torch.is_grad_enabled():
        return function.apply(*inputs)  # type: ignore[return-value]
    return function.forward(_Forgetful(), *inputs)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, inverse = torch.empty_like(x), torch.empty(x.shape[:-1], dtype=torch.float32)
        _call("rms_norm", x, weight, y, inverse, inverse.numel(), x.size(-1), eps)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, inverse = ctx.saved_tensors
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        _call("rms_norm_backward", g.contiguous(), x, weight, inverse, dx, dweight, inverse.numel(), x.size(-1))
        return dx, dweight, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.new_empty(*x.shape[:-1], x.size(-1) // 2)
        _call("swiglu", x, y, y.numel() // y.size(-1), y.size(-1))
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        _call("swiglu_backward", g.contiguous(), x, dx, g.numel() // g.size(-1), g.size(-1))
        return dx


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        positions, batch, heads, width = x.shape
        y = x.new_empty(batch, heads, positions, width).permute(2, 0, 1, 3)
        return _turn(x, y, cosine, sine, 1.0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turn(g, g.new_empty(g.shape), cosine, sine, -1.0), None, None


def _turn(x: Tensor, y: Tensor, cosine: Tensor, sine: Tensor, sign: float) -> Tensor:
    x = x if x.stride(-1) == 1 else x.contiguous()
    _call("rotary", x, _strides(x), y, _strides(y), cosine, sine, *x.shape, cosine.size(-1), sign)
    return y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, slopes: Tensor | None) -> Tensor:
        out = q.new_empty(q.shape)
        evidence = torch.empty(q.size(1), q.size(2), q.size(0), dtype=torch.float32)  # log of a softmax's sum
        ctx.seen = _seen(mask, slopes)
        _call("attention", q, k, v, out, evidence, _strides(q, k, v, out), *ctx.seen, *_sizes(q, k))
        ctx.save_for_backward(q, k, v, out, evidence)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, evidence = ctx.saved_tensors
        g = g if g.stride(-1) == 1 else g.contiguous()
        dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
        strides = _strides(g, q, k, v, out, dq, dk, dv)
        _call("attention_backward", g, q, k, v, out, evidence, dq, dk, dv, strides, *ctx.seen, *_sizes(q, k))
        return dq, dk, dv, None, None


def _seen(mask: Tensor | None, slopes: Tensor | None) -> tuple[Tensor | None, Any, Tensor | None]:
    """mask, its strides over sequences and queries, slopes."""
    if mask is None:
        return None, (ctypes.c_long * 2)(0, 0), slopes
    mask = mask if mask.stride(-1) == 1 else mask.contiguous()
    return mask, (ctypes.c_long * 2)(mask.stride(0) if mask.size(0) > 1 else 0, mask.stride(2)), slopes


def _sizes(q: Tensor, k: Tensor) -> tuple[int | float, ...]:
    """positions, batch, heads, key and value heads, width, scale."""
    return *q.shape[:3], k.size(2), q.size(3), q.size(3) ** -0.5


# ---- in place, for a function with a gradient of its own


def cross_entropy_(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihoods, float32 [rows]; logits [rows, ids] become their gradient, softmax less one-hot."""
    if not usable(logits):
        log_p = logits.float().log_softmax(-1)
        loss = -log_p.gather(-1, labels[:, None])
        logits.copy_(log_p.exp_().scatter_add_(-1, labels[:, None], torch.full_like(loss, -1.0)))
        return loss.squeeze(-1)
    loss = torch.empty(len(logits), dtype=torch.float32)
    _call("cross_entropy", logits, labels.contiguous(), loss, *logits.shape)
    return loss


# ---- for scoring, without a gradient


def tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, slopes: Tensor | None = None) -> Tensor:
    """Attention of a prefix tree's tokens to their ancestors; no [query, key] matrix, and what no query of a block
    sees costs nothing.

    Args:
        q: [positions, 1, heads, width].
        k, v: [positions, 1, key and value heads, width].
        slopes: float32 [heads]: what a score loses with each step of depth.

    Returns:
        [positions, 1, heads x width].
    """
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out = q.new_empty(q.shape)
    room = (0, -len(q) % 32)
    ends, depths = F.pad(tree.ends.int(), room), F.pad(tree.depths.float(), room)
    _call("tree_attention", q, k, v, out, _strides(q, k, v, out), ends, depths, slopes, *_sizes(q, k))
    return out.flatten(2)


def log_sum_exp(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of [rows, ids]: log of the sum of exponentials, float32, and the first of the largest, int64."""
    if not usable(logits):
        return logits.float().logsumexp(-1), logits.argmax(-1)
    evidence, best = torch.empty(len(logits), dtype=torch.float32), torch.empty(len(logits), dtype=torch.int64)
    _call("log_sum_exp", logits.contiguous(), evidence, best, *logits.shape)
    return evidence, best


# ---- for generation (see decode_step.py, which knows the model)


def pack(weight: Tensor) -> Tensor:
    """A weight [outputs, inputs] in the order in which `decode` reads it, bytes."""
    size = ctypes.c_long()
    _kernel("number", weight.dtype)(ctypes.byref(size))
    rows, columns = (-(-n // 32) * 32 for n in weight.shape)
    packed = torch.empty(rows * columns * size.value, dtype=torch.uint8)
    _call("pack", weight.detach().contiguous(), packed, *weight.shape)
    return packed


def decode(
    embedded: Tensor, weights: Any, cosine: Tensor, sine: Tensor, first: Tensor, ids: int, sizes: Any, eps: float
) -> Tensor:
    """Logits, float32 [batch, ids], of one token for each row.

    Args:
        embedded: [batch, hidden].
        weights: C pointers as `kernels_decode.cpp` lists them.
        cosine, sine: float32 [channels that turn], of this position.
        first: int64 [batch], each row's first position that is no padding.
        sizes: C numbers as `kernels_decode.cpp` lists them.
    """
    batch = len(embedded)
    logits = torch.empty(-(-batch // 8) * 8, -(-ids // 32) * 32)
    kernel = _kernel("decode", embedded.dtype)
    kernel(weights, *map(_as_c, (embedded, cosine, sine, first, logits)), sizes, ctypes.c_float(eps))
    return logits[:batch, :ids]


# ---- into Megatron's model


def adopt(model: nn.Module) -> None:
    """Let the norms and gated activations of a model of Megatron's run on these kernels where they act, on a CPU."""
    if not usable(next(model.parameters())):
        return
    for module in model.modules():
        if type(module) is nn.RMSNorm:
            module.__class__ = RMSNorm
        elif isinstance(module, MLP) and module.config.gated_linear_unit and module.config.activation_func is F.silu:
            module.activation_func = SwiGLU()
            module.config.use_te_activation_func = True  # Megatron's switch for an activation of the whole pair


# ---- the library


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors: on a CPU, all of one type out of TYPES, and the library is there."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.dtype in TYPES
        and all(t.dtype == first.dtype for t in tensors)
        and _library() is not None
    )


def _call(name: str, *arguments: Any) -> None:
    """Call a kernel on the first tensor's type."""
    _kernel(name, arguments[0].dtype)(*map(_as_c, arguments))


def _kernel(name: str, dtype: torch.dtype) -> Any:
    return getattr(_library(), f"{name}_{TYPES[dtype]}")


def _as_c(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, int):
        return ctypes.c_long(value)
    return ctypes.c_float(value) if isinstance(value, float) else value


def _strides(*tensors: Tensor) -> Any:
    """Of each [positions, batch, heads, width], all but the last, which is 1."""
    return (ctypes.c_long * (3 * len(tensors)))(*(stride for t in tensors for stride in t.stride()[:3]))


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, built where this processor, compiler and source have not been built before."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        what = hashlib.sha256(
            b"\0".join([*(s.read_bytes() for s in SOURCES), version, " ".join(FLAGS).encode(), _processor()])
        )
        path = _cache() / f"kernels-{what.hexdigest()[:16]}.so"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                built = Path(scratch) / path.name
                subprocess.run(
                    [compiler, *FLAGS, *(s for s in SOURCES if s.suffix == ".cpp"), "-o", built],
                    capture_output=True,
                    check=True,
                    text=True,
                )
                os.replace(built, path)  # ranks that build at the same time write the same
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError) as e:
        told = (getattr(e, "stderr", None) or str(e)).splitlines()
        why = next((line for line in told if "error" in line), str(e))
        warnings.warn(f"training goes on without compiled kernels: {why}", stacklevel=2)
        return None


def _processor() -> bytes:
    """What -march=native follows, so that a cache in a shared home serves several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return b"\n".join(sorted({line for line in lines if line.startswith((b"flags", b"Features"))}))
    except OSError:
        return platform.processor().encode()


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
