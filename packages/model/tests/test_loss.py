"""The output embedding and cross-entropy in pieces are the textbook's in one."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model.loss import ROWS, linear_cross_entropy, linear_scores


def _case(rows: int, hidden: int, vocabulary: int, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, hidden, generator=g).requires_grad_()
    w = torch.randn(vocabulary, hidden, generator=g).requires_grad_()
    return h, w, torch.randint(0, vocabulary, (rows,), generator=g), torch.randn(rows, generator=g)


@given(st.sampled_from([1, 7, ROWS, ROWS + 1]), st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_loss_and_gradients_are_those_of_torch_whatever_the_weight_of_a_position(
    rows: int, hidden: int, vocabulary: int, seed: int
) -> None:
    h, w, labels, weight = _case(rows, hidden, vocabulary, seed)
    bias = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    for b, inputs in ((None, (h, w)), (bias, (h, w, bias))):
        expected = F.cross_entropy(F.linear(h, w, b), labels, reduction="none")
        got = linear_cross_entropy(h, w, labels, bias=b)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(
            torch.autograd.grad((got * weight).sum(), inputs),
            torch.autograd.grad((expected * weight).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_scores_are_log_likelihoods_and_name_the_greedy_choice() -> None:
    h, w, labels, _ = _case(ROWS + 3, 5, 17, 0)
    logits = h @ w.t()
    labels[:50] = logits.argmax(-1)[:50]
    logprobs, greedy = linear_scores(h, w, labels)
    torch.testing.assert_close(logprobs, -F.cross_entropy(logits, labels, reduction="none"), rtol=1e-4, atol=1e-4)
    assert torch.equal(greedy, logits.argmax(-1) == labels) and greedy[:50].all()


def test_huge_logits_neither_overflow_nor_vanish() -> None:
    h, w = torch.tensor([[1e4, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert linear_cross_entropy(h, w, torch.tensor([0])).item() == 0.0
    assert linear_cross_entropy(h, w, torch.tensor([1])).item() == 2e4
