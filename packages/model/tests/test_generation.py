"""Sampling: the cache changes no probability, company changes no row, and the cuts do what they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model import forward, gpt
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig
from headwater_model.generation import generate, sample, stream

PROMPTS = [[5, 6, 7, 8, 9], [11], [3, 4, 5], list(range(100, 115))]


@pytest.fixture(scope="module")
def model(shape: ModelConfig) -> gpt.GPT:
    return gpt.build(shape, seed=5)


def test_a_batch_of_unequal_prompts_is_the_prompts_one_by_one(model: gpt.GPT) -> None:
    together = generate(model, PROMPTS, 12, temperature=0)
    for prompt, row in zip(PROMPTS, together, strict=True):
        alone = generate(model, [prompt], 12, temperature=0)[0]
        assert row.tokens == alone.tokens
        assert row.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_the_cache_gives_the_probabilities_of_a_full_pass(model: gpt.GPT) -> None:
    for prompt, row in zip(PROMPTS, generate(model, PROMPTS, 12, seed=3), strict=True):
        full = forward.token_logprobs(model, torch.tensor([prompt + row.tokens]))[0, len(prompt) - 1 :]
        assert row.logprobs == pytest.approx(full.tolist(), abs=1e-5)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: gpt.GPT) -> None:
    texts = [generate(model, PROMPTS, 12, seed=s) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert list(stream(model, PROMPTS[0], 12, seed=1)) == generate(model, PROMPTS[:1], 12, seed=1)[0].tokens


def test_a_row_ends_at_its_stop_id_and_keeps_it(model: gpt.GPT) -> None:
    free = generate(model, PROMPTS, 12, temperature=0)
    stop = free[0].tokens[3]
    cut = generate(model, PROMPTS, 12, temperature=0, stop_ids=[stop])
    for before, after in zip(free, cut, strict=True):
        end = before.tokens.index(stop) + 1 if stop in before.tokens else 12
        assert after.tokens == before.tokens[:end]


def test_a_prompt_longer_than_the_context_is_cut_on_the_left(model: gpt.GPT) -> None:
    long = [i % 512 for i in range(100)]
    assert generate(model, [long], 8, temperature=0) == generate(model, [long[-24:]], 8, temperature=0)


@pytest.mark.parametrize(("prompts", "new"), [([[1], []], 4), ([[1]], 32)])
def test_an_empty_prompt_and_too_many_tokens_are_refused(model: gpt.GPT, prompts: list, new: int) -> None:
    with pytest.raises(UserError):
        generate(model, prompts, new)


@given(st.integers(0, 2**31), st.integers(1, 9), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_top_k_and_top_p_draw_only_from_the_likeliest(seed: int, k: int, p: float) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 10, generator=g)
    ordered = logits[0].argsort(descending=True).tolist()
    probabilities = logits[0].softmax(-1)
    nucleus = []
    for token in ordered:
        nucleus.append(token)
        if sum(probabilities[t] for t in nucleus) >= p - 1e-6:
            break
    drawn = {int(sample(logits, 1.0, k, 1.0, g)) for _ in range(30)}
    assert drawn <= set(ordered[:k])
    drawn = {int(sample(logits, 1.0, 0, p, g)) for _ in range(30)}
    assert drawn <= set(nucleus) | {ordered[min(len(nucleus), 9)]}


def test_samples_follow_the_distribution() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    shares = torch.bincount(sample(logits, 1.0, 0, 1.0, g)) / 20_000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.015)
    sharp = torch.bincount(sample(logits, 0.5, 0, 1.0, g)) / 20_000
    assert sharp.tolist() == pytest.approx([0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38], abs=0.015)
