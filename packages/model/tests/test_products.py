"""The way round a slow fp32 product gives that product, wherever it is taken, and leaves autograd alone."""

from __future__ import annotations

import itertools

import pytest
import torch

from headwater_model import cpu, products


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(products, "SLOW", True)
    monkeypatch.setattr(products, "SMALLEST", 1)


def test_it_is_the_product_for_every_layout_that_training_uses() -> None:
    x, w, g = torch.randn(3, 20, 48), torch.randn(33, 48), torch.randn(3, 20, 33)
    flat_x, flat_g = x.flatten(0, 1), g.flatten(0, 1)
    for a, b in ((x, w.t()), (g, w), (flat_g.t(), flat_x)):
        assert torch.allclose(products.matmul(a, b).double(), a.double() @ b.double(), atol=1e-4)
    out = torch.empty(60, 33)
    assert products.matmul(flat_x, w.t(), out=out) is out
    assert torch.allclose(out, flat_x @ w.t(), atol=1e-4)


def test_matrices_may_lie_in_memory_in_any_way() -> None:
    def views(rows: int, columns: int) -> list[torch.Tensor]:
        return [
            torch.randn(columns, rows).t(),
            torch.randn(rows, columns + 3)[:, 1:-2],
            torch.randn(columns + 5, rows)[2:-3].t(),
            torch.randn(columns, rows + 4)[:, 2:-2].t(),
            torch.randn(2 * rows, columns)[::2],
            torch.randn(1, columns).expand(rows, columns),
        ]

    for a, b in itertools.product(views(30, 128), views(128, 57)):
        assert torch.allclose(products.matmul(a, b).double(), a.double() @ b.double(), atol=1e-4)


def test_what_wants_a_gradient_gets_torchs_own() -> None:
    x, w = torch.randn(8, 16), torch.randn(16, 4, requires_grad=True)
    with cpu.on_device():
        torch.matmul(x, w).sum().backward()
    assert w.grad is not None and torch.allclose(w.grad, x.sum(0)[:, None].expand(16, 4), atol=1e-5)


@pytest.mark.skipif(cpu.HAS_CUDA, reason="for CPUs")
def test_megatrons_layers_take_it_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce as linear

    calls = []
    monkeypatch.setattr(products, "_faster", lambda a, b: calls.append(tuple(b.shape)))
    x, w = torch.randn(5, 2, 16, requires_grad=True), torch.randn(8, 16, requires_grad=True)
    with cpu.on_device():
        linear(x, w, None, False, False, False).sum().backward()
    assert calls == [(16, 8), (8, 16), (10, 16)]  # the layer, the gradient of its input, the gradient of its weight
