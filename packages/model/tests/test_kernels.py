"""Each kernel is the mathematics written out in float64, forward and backward; threads change no bit of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater_model import gpt, kernels
from headwater_model.attention import segment_mask
from headwater_model.config import ModelConfig

TYPES = [torch.float32, torch.bfloat16]
pytestmark = pytest.mark.skipif(kernels._library() is None, reason="no C++ compiler")


def _draw(*shape: int, dtype: torch.dtype, seed: int = 0, spread: float = 1.0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread
    return made.to(dtype).requires_grad_()


def _agree(kernel: Callable, reference: Callable, inputs: list[Tensor]) -> None:
    """Value and every gradient, up to the rounding of the inputs' type at the scale of the whole tensor."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got, wanted = kernel(*inputs), reference(*exact)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(9)).to(got.dtype)
    got.backward(upstream)
    wanted.backward(upstream.double())
    rounding = 2e-2 if inputs[0].dtype == torch.bfloat16 else 1e-5
    pairs = [(got, wanted), *((x.grad, y.grad) for x, y in zip(inputs, exact, strict=True))]
    for found, true in pairs:
        assert found is not None and true is not None and found.dtype == inputs[0].dtype
        assert (found.double() - true).abs().max() <= rounding * true.abs().max()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [256, 37])
def test_rms_norm(dtype: torch.dtype, width: int) -> None:
    x, weight = _draw(5, 3, width, dtype=dtype, spread=3), _draw(width, dtype=dtype, seed=1)
    _agree(lambda x, w: kernels.rms_norm(x, w, 1e-5), lambda x, w: F.rms_norm(x, w.shape, w, 1e-5), [x, weight])


@pytest.mark.parametrize("dtype", TYPES)
def test_swiglu_at_moderate_and_extreme_gates(dtype: torch.dtype) -> None:
    def plain(x: Tensor) -> Tensor:
        gate, linear = x.chunk(2, -1)
        return F.silu(gate) * linear

    _agree(kernels.swiglu, plain, [_draw(4, 7, 2 * 45, dtype=dtype)])
    _agree(kernels.swiglu, plain, [_draw(2, 2, 2 * 45, dtype=dtype, spread=300)])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("turned", [16, 4])
def test_rotary_turns_as_complex_numbers_do(dtype: torch.dtype, turned: int) -> None:
    angles = torch.rand(9, 1, 1, turned // 2, generator=torch.Generator().manual_seed(3)) * 500
    both = torch.cat([angles, angles], -1)

    def plain(x: Tensor) -> Tensor:
        halves = x[..., :turned].unflatten(-1, (2, turned // 2)).movedim(-2, -1).contiguous()
        spun = torch.view_as_complex(halves) * torch.polar(torch.ones_like(angles), angles).to(torch.complex128)
        return torch.cat([torch.view_as_real(spun).movedim(-1, -2).flatten(-2), x[..., turned:]], -1)

    mixed = _draw(9, 2, 3, 32, dtype=dtype)
    _agree(
        lambda x: kernels.rotary(x[..., :16], both), lambda x: plain(x[..., :16]), [mixed]
    )  # strided, as from a split


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("positions", "groups", "width", "kind"),
    [(150, 4, 16, "causal"), (64, 2, 64, "causal"), (33, 1, 5, "causal"), (150, 2, 16, "masked"), (300, 4, 8, "packed"),
     (70, 2, 16, "alibi")],
)  # fmt: skip
def test_attention(dtype: torch.dtype, positions: int, groups: int, width: int, kind: str) -> None:
    """Lengths and widths that fill no block, shared keys, strided inputs as from a split, masks and biases."""
    mixed = [_draw(positions, 2, n, width + 3, dtype=dtype, seed=n, spread=2) for n in (4, groups, groups)]
    later = torch.ones(positions, positions, dtype=torch.bool).triu(1)
    mask, slopes, bias = None, None, torch.zeros(4, positions, positions)
    if kind == "masked":  # some random keys, earlier and later, and oneself
        mask = torch.rand(2, 1, positions, positions, generator=torch.Generator().manual_seed(5)) < 0.7
        mask &= ~torch.eye(positions, dtype=torch.bool)
    if kind == "packed":
        mask = segment_mask((torch.arange(positions) // 77)[None])
    if kind == "alibi":
        slopes = torch.tensor([0.5, 0.25, 0.125, 0.0])
        places = torch.arange(positions)
        bias = -slopes[:, None, None] * (places[:, None] - places[None, :]).abs()

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t[..., :width].permute(1, 2, 0, 3) for t in (q, k, v))
        k, v = (t.repeat_interleave(4 // groups, 1) for t in (k, v))
        scores = (q @ k.mT * width**-0.5 + bias).masked_fill(later if mask is None else mask, -torch.inf)
        return (scores.softmax(-1) @ v).permute(2, 0, 1, 3).flatten(2)

    _agree(lambda *x: kernels.attention(*(t[..., :width] for t in x), mask, slopes), plain, mixed)


@pytest.mark.parametrize("dtype", TYPES)
def test_cross_entropy_and_its_slope(dtype: torch.dtype) -> None:
    logits = _draw(6, 1000, dtype=dtype, spread=20).detach()
    labels = torch.tensor([0, 999, 5, 5, 17, 500])
    exact = logits.double().requires_grad_()
    loss = F.cross_entropy(exact, labels, reduction="none")
    loss.sum().backward()
    found = kernels.cross_entropy_(logits, labels)
    assert torch.allclose(found.double(), loss, rtol=1e-5, atol=1e-4)
    assert (logits.double() - exact.grad).abs().max() < (4e-3 if dtype == torch.bfloat16 else 1e-5)


def test_what_is_not_a_number_stays_so() -> None:
    for dtype in TYPES:
        bad = torch.tensor([[1.0, torch.nan, 2.0, 3.0]], dtype=dtype)
        assert kernels.swiglu(bad).isnan().any()
        assert kernels.rms_norm(bad, torch.ones(4, dtype=dtype), 1e-5).isnan().all()
        assert kernels.cross_entropy_(bad.clone(), torch.tensor([0])).isnan().all()
        q = bad.view(1, 1, 1, 4).expand(3, 1, 1, 4)
        assert kernels.attention(q, q, q).isnan().all()


@pytest.mark.parametrize("dtype", TYPES)
def test_threads_change_no_bit_of_a_step(dtype: torch.dtype) -> None:
    """Of what the kernels do; products keep one thread."""
    x, w = _draw(130, 8, 64, dtype=dtype).detach(), _draw(64, dtype=dtype, seed=1).detach()

    def step() -> list[Tensor]:
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = kernels.swiglu(kernels.rms_norm(a, b, 1e-5)).unflatten(-1, (2, 16))
        y = kernels.attention(y, y, y)
        y.backward(torch.ones_like(y))
        return [y, a.grad, b.grad]  # type: ignore[list-item]

    alone = step()
    torch.set_num_threads(2)
    try:
        together = step()
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_model_is_the_same_with_and_without_kernels(shape: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(0, shape.vocab, (2, 20), generator=torch.Generator().manual_seed(2))

    def loss_and_gradients() -> list[Tensor]:
        model = gpt.build(shape, seed=4)
        loss = model(tokens[:, :-1], labels=tokens[:, 1:])
        loss.sum().backward()
        return [loss.detach(), *(p.grad for p in model.parameters())]

    with_kernels = loss_and_gradients()
    monkeypatch.setattr(kernels, "_library", lambda: None)
    for a, b in zip(with_kernels, loss_and_gradients(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * b.abs().max())


def test_a_compiler_that_fails_is_named_and_the_numbers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "c++"
    broken.write_text('#!/bin/sh\ntest "$1" = --version && echo 1 || { echo "error: no such header" >&2; exit 1; }')
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="without compiled kernels: error: no such header"):
        assert kernels._library.__wrapped__() is None
    monkeypatch.setattr(kernels, "_library", lambda: None)
    assert kernels.swiglu(torch.ones(1, 4)).tolist() == [[pytest.approx(0.7310586)] * 2]
    assert not list((tmp_path / "headwater").glob("*.so"))


def test_no_compiler_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert kernels._library.__wrapped__() is None
