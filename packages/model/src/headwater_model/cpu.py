"""Megatron-core without a GPU: all that megatron-core 0.16.1 needs in order to run on a CPU, in one place.

Nothing here acts where CUDA is present. What stands in the way, and what is done:

  torch.compile at import   ten decorated functions load torch._inductor, 4.5 s, for fusions that cost 8%
                            of the speed on a CPU: during the first import they stay plain functions
  torch.cuda.current_device names the CPU device; set_device, synchronize and empty_cache do nothing
  device="cuda", .cuda()    spelled out in about 30 modules: `on_device` maps them while a block runs
  torch.cuda's generator    its state and seed are those of the CPU's generator: dropout inside tensor-parallel
                            regions and recomputation draw what they drew before
  pin_memory=True           asked of a small tensor: ordinary memory, in the same block
  Tensor.type()             compared with "torch.cuda.FloatTensor" by the optimisers: answered so in the same block
  fp32 products             at half speed on some processors: `products`, in the same block
  large temporaries         glibc maps and unmaps each one, and every step pays for the page faults:
                            `keep_pages` makes it hold on to its pages (measured: 15 to 40% of a step)

Import this module before anything of Megatron.
"""

from __future__ import annotations

import contextlib
import ctypes
import warnings
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from . import products

HAS_CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda") if HAS_CUDA else torch.device("cpu")


def on_device() -> contextlib.AbstractContextManager:
    """A block in which Megatron's spelled-out CUDA device means the device at hand."""
    return contextlib.nullcontext() if HAS_CUDA else _CudaMeansCpu()


def keep_pages() -> None:
    """Let glibc keep freed pages for the next large tensor; resident memory then stays at its peak."""
    if HAS_CUDA:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no tensor in a mapping of its own
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back


_MATMUL = (torch.matmul, torch.Tensor.matmul)


class _CudaMeansCpu(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        device = kwargs.get("device")
        if device is not None and str(device).startswith("cuda"):
            kwargs = {**kwargs, "device": DEVICE}
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.")
        if func in _MATMUL and len(args) == 2 and not kwargs:  # Megatron's linear layers, forward and backward
            return products.matmul(*args)
        return func(*args, **kwargs)


def _import_megatron() -> None:
    # Transformer Engine and Apex are not there: that is why we are here.
    warnings.filterwarnings("ignore", module=r"megatron\.")
    # Megatron still calls two of torch's collectives by their old names; each call warns.
    old = r"`torch\.distributed\.(reduce_scatter|all_gather)_"
    warnings.filterwarnings("ignore", message=old, category=FutureWarning)
    compiler = torch.compile
    if not HAS_CUDA:
        torch.compile = _plain  # type: ignore[assignment]
    try:
        import megatron.core.models.gpt.gpt_layer_specs  # noqa: F401
    finally:
        torch.compile = compiler


def _enter_in_backward() -> None:
    """Backward passes run outside of `on_device`; that of the linear layers has products in it."""
    from megatron.core.tensor_parallel import layers

    def inside(backward: Any, ctx: Any, gradient: torch.Tensor) -> Any:
        with on_device():
            return backward(ctx, gradient)

    for linear in (layers.LinearWithGradAccumulationAndAsyncCommunication, layers.LinearWithFrozenWeight):
        linear.backward = staticmethod(partial(inside, linear.backward))


def _plain(function: Any = None, **_: Any) -> Any:
    return function if function is not None else lambda f: f


def _name_the_cpu_device() -> None:
    torch.cuda.current_device = lambda: DEVICE  # type: ignore[assignment,return-value]
    torch.cuda.set_device = lambda device: None
    torch.cuda.synchronize = lambda device=None: None
    torch.cuda.empty_cache = lambda: None


def _share_the_generator() -> None:
    torch.cuda.get_rng_state = torch.cuda.random.get_rng_state = lambda device="cuda": torch.get_rng_state()
    torch.cuda.manual_seed = torch.manual_seed  # type: ignore[assignment]
    from megatron.core.tensor_parallel import random

    random._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)


if not HAS_CUDA:
    _name_the_cpu_device()
_import_megatron()
if not HAS_CUDA:
    _share_the_generator()
    _enter_in_backward()
