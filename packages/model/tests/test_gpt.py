"""What must hold of the model whatever its weights."""

import torch

from headwater_model import forward, gpt
from headwater_model.config import ModelConfig


def _tokens(rows: int, size: int) -> torch.Tensor:
    return torch.randint(0, 512, (rows, size), generator=torch.Generator().manual_seed(4))


def test_no_position_sees_a_later_one(shape: ModelConfig) -> None:
    model, tokens = gpt.build(shape, seed=3), _tokens(2, 20)
    changed = tokens.clone()
    changed[:, 11:] = (changed[:, 11:] + 1) % 512
    a, b = forward.logits(model, tokens), forward.logits(model, changed)
    assert torch.equal(a[:, :11], b[:, :11]) and not torch.equal(a[:, 11], b[:, 11])


def test_log_likelihoods_are_those_of_the_logits(shape: ModelConfig) -> None:
    model, tokens = gpt.build(shape, seed=3), _tokens(3, 20)
    logits = forward.logits(model, tokens).log_softmax(-1)
    expected = logits[:, :-1].gather(-1, tokens[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(forward.token_logprobs(model, tokens), expected, rtol=1e-4, atol=1e-5)
    scores, greedy = forward.token_scores(model, tokens)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(greedy, logits[:, :-1].argmax(-1) == tokens[:, 1:])


def test_left_padding_changes_nothing(shape: ModelConfig) -> None:
    model, tokens = gpt.build(shape, seed=3), _tokens(1, 12)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), tokens], 1)
    hidden = torch.arange(17)[None] < 5
    alone = forward.token_logprobs(model, tokens)
    torch.testing.assert_close(forward.token_logprobs(model, padded, hidden)[:, 5:], alone, rtol=1e-4, atol=1e-5)
    scalar = gpt.build(shape, head="scalar", seed=3)
    torch.nn.init.normal_(scalar.output_layer.weight)
    values = forward.values(scalar, tokens)
    torch.testing.assert_close(forward.values(scalar, padded, hidden)[:, 5:], values, rtol=1e-4, atol=1e-5)


def test_weights_follow_from_the_seed_alone(shape: ModelConfig) -> None:
    a, b, c = (gpt.build(shape, seed=s).state_dict() for s in (5, 5, 6))
    weights = [n for n, w in a.items() if torch.is_tensor(w) and w.dim() == 2]
    assert all(torch.equal(a[n], b[n]) for n in weights) and not any(torch.equal(a[n], c[n]) for n in weights)
    layers = [a[f"decoder.layers.{i}.mlp.linear_fc1.weight"] for i in range(2)]
    assert not torch.equal(*layers)


def test_an_untrained_model_predicts_near_the_uniform_distribution(shape: ModelConfig) -> None:
    loss = -forward.token_logprobs(gpt.build(shape, seed=3), _tokens(8, 32)).mean().item()
    assert abs(loss - torch.log(torch.tensor(512.0)).item()) < 0.1


def test_what_the_loss_mask_leaves_out_costs_nothing_and_changes_nothing_else(shape: ModelConfig) -> None:
    """Its labels need not even be ids; loss and gradients are those of the whole less what is left out."""
    found = []
    tokens, mask = _tokens(3, 20), torch.rand(3, 20, generator=torch.Generator().manual_seed(5)) < 0.4
    labels = tokens.roll(-1, 1)
    for given in (None, mask):
        model = gpt.build(shape, seed=3)
        losses = model(tokens, labels=labels if given is None else labels.where(mask, -100), loss_mask=given)
        (losses * mask).sum().backward()
        found.append([losses * mask, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert not losses[~mask].any()
    model = gpt.build(shape, seed=3)
    nothing = model(tokens, labels=labels, loss_mask=torch.zeros_like(mask))
    nothing.sum().backward()
    assert not nothing.any() and not any(p.grad.any() for p in model.parameters())
