"""Prefix trees: every token once, and through the model the numbers that each sequence alone gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model import forward, gpt, kernels
from headwater_model.config import ModelConfig
from headwater_model.tree import Tree, trees

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20)


@given(sequences, st.sampled_from([1, 8, 1000]))
def test_every_sequence_stands_in_one_tree_and_no_beginning_twice(rows: list[list[int]], size: int) -> None:
    seen = []
    for tree, places in trees(rows, size):
        seen += places
        assert len(tree.tokens) <= size or len(places) == 1
        assert len(tree.tokens) == len({tuple(rows[i][: n + 1]) for i in places for n in range(len(rows[i]))})
        mask = tree.mask()[0, 0]
        for i, path in places.items():
            assert tree.tokens[path].tolist() == rows[i] and tree.depths[path].tolist() == list(range(len(path)))
            for n, place in enumerate(path):
                assert (~mask[place]).nonzero().squeeze(1).tolist() == path[: n + 1]
    assert sorted(seen) == list(range(len(rows)))


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        list(trees([[1], []], 10))


def _rows(vocab: int, seed: int) -> list[list[int]]:
    """Three examples that all share, questions after them, and answers after those; and one sequence apart."""
    g = torch.Generator().manual_seed(seed)

    def draw(n: int) -> list[int]:
        return torch.randint(vocab, (n,), generator=g).tolist()

    examples = draw(70)
    questions = [examples + draw(n) for n in (3, 40, 11)]
    return [question + draw(n) for question in questions for n in (1, 5, 30)] + [draw(33)]


SHAPES = {
    "default": {},
    "grouped": {"kv_heads": 2, "tie_embeddings": True},
    "learned": {"position": "learned"},
    "alibi": {"position": "alibi"},
    "part": {"rope_share": 0.5, "parallel_residual": True},
}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_a_tree_gives_the_scores_of_each_sequence_alone(
    name: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain:
        monkeypatch.setattr(kernels, "_library", lambda: None)
    model = gpt.build(ModelConfig(layers=2, hidden=64, heads=4, vocab=97, context=160, **SHAPES[name]), seed=3)
    rows = _rows(97, 1)
    found = 0
    for tree, places in trees([row[:-1] for row in rows], 120):
        for index, path in places.items():
            labels = torch.tensor(rows[index][1:])
            nats, greedy = forward.tree_scores(model, tree, torch.tensor(path), labels)
            alone, likeliest = forward.token_scores(model, torch.tensor([rows[index]]))
            torch.testing.assert_close(nats, alone[0], rtol=0, atol=2e-5)
            assert greedy.tolist() == likeliest[0].tolist()
            found += 1
    assert found == len(rows)


@settings(max_examples=15)
@given(sequences, st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16]))
def test_attention_in_a_tree_is_that_of_its_mask(rows: list[list[int]], seed: int, dtype: torch.dtype) -> None:
    (pair,) = trees([row * 9 for row in rows], 10_000)
    tree: Tree = pair[0]
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(len(tree.tokens), 1, heads, 24, generator=g).to(dtype) for heads in (4, 2, 2))
    if not kernels.usable(q, k, v):
        pytest.skip("no compiler")
    q4, k4, v4 = (t.permute(1, 2, 0, 3).float() for t in (q, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(q4, k4, v4, ~tree.mask(), enable_gqa=True)
    got = kernels.tree_attention(q, k, v, tree).float()
    limit = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(got, expected.permute(2, 0, 1, 3).flatten(2), rtol=limit, atol=limit)


def test_the_likeliest_of_equals_is_the_first_and_sums_are_those_of_torch() -> None:
    logits = torch.randn(7, 301, generator=torch.Generator().manual_seed(1)) * 20
    logits[3, 100] = logits[3, 200] = 300.0
    evidence, best = kernels.log_sum_exp(logits)
    torch.testing.assert_close(evidence, logits.logsumexp(-1))
    assert best.tolist() == logits.argmax(-1).tolist() and best[3] == 100
