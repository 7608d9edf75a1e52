"""Sampling: the cache changes no probability, company changes no row, and the cuts do what they say."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headwater_model import decode_step, forward, gpt, kernels
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig
from headwater_model.generation import StopStrings, decode, generate, sample, sample_at, stream

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_short_way_is_taken_and_gives_what_megatrons_modules_give(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an odd shape: grouped queries, tied embeddings, widths that are no multiple of 32."""
    shape = ModelConfig(layers=2, hidden=72, heads=6, kv_heads=2, ffn=88, vocab=300, context=32, tie_embeddings=True)
    model = gpt.build(shape, seed=2, dtype=dtype)
    assert decode_step.fits(model) == (kernels._library() is not None)
    prompts = [[i % 300 for i in p] for p in PROMPTS]
    short = generate(model, prompts, 12, temperature=0)
    monkeypatch.setattr(decode_step, "fits", lambda model: False)
    for a, b in zip(short, generate(model, prompts, 12, temperature=0), strict=True):
        same = next((i for i in range(12) if a.tokens[i] != b.tokens[i]), 12)  # bf16 may tie
        assert same == 12 or dtype == torch.bfloat16
        assert a.logprobs[:same] == pytest.approx(b.logprobs[:same], abs=1e-5 if dtype == torch.float32 else 0.05)


def test_the_short_way_is_left_to_the_default_architecture(shape: ModelConfig) -> None:
    for change in ("layer", "bias"):
        model = gpt.build(shape, seed=2)
        layer = model.decoder.layers[1]
        if change == "layer":
            layer.mlp.activation_func = torch.nn.SiLU()
        else:
            layer.mlp.linear_fc2.register_parameter("bias", torch.nn.Parameter(torch.zeros(shape.hidden)))
        assert not decode_step.fits(model)


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


STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


@given(st.text("ab\n", max_size=24), STOPS, st.lists(st.integers(0, 24), max_size=6))
@settings(max_examples=200, deadline=None)
def test_text_ends_before_the_first_stop_string_however_it_comes_in_pieces(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    ends = [(text.index(s) + len(s), text.index(s)) for s in stops if s in text]
    bounds = [0, *sorted(cuts), len(text)]
    watch, shown = StopStrings(stops), ""
    for start, end in zip(bounds, bounds[1:], strict=False):
        shown += watch.add(text[start:end])
        assert text.startswith(shown) and not any(s in shown for s in stops)
        if watch.found:
            break
    assert watch.found == bool(ends)
    assert shown + watch.rest() == (text[: min(ends)[1]] if ends else text)


def test_rows_stop_at_a_string_that_spans_tokens_and_show_nothing_of_it(model: gpt.GPT, tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    free = generate(model, PROMPTS, 12, temperature=0)
    whole = [tokenizer.decode(row.tokens) for row in free]
    at = next(i for i in range(4, len(whole[0]) - 4) if "\ufffd" not in whole[0][i - 2 : i + 2])
    stop = whole[0][at - 2 : at + 2]  # four characters from the middle of the first text
    cut = generate(model, PROMPTS, 12, temperature=0, stop=[stop, "never written"], tokenizer=tokenizer)
    assert cut[0].text == whole[0][: whole[0].index(stop)]
    assert 0 < len(cut[0].tokens) < 12 and stop in tokenizer.decode(cut[0].tokens)
    for before, after, text in zip(free, cut, whole, strict=True):
        assert before.tokens[: len(after.tokens)] == after.tokens
        assert after.text == text.split(stop)[0]
    taken = []
    ids = (taken.append(t) or t for t in free[0].tokens)
    assert "".join(decode(tokenizer, ids, [stop])) == cut[0].text
    assert taken == cut[0].tokens  # nothing is generated beyond it


def test_an_empty_stop_string_is_refused_and_so_is_one_without_a_tokenizer(model: gpt.GPT) -> None:
    with pytest.raises(UserError, match="stop string is empty"):
        StopStrings(["a", ""])
    with pytest.raises(ValueError, match="tokenizer"):
        generate(model, PROMPTS, 2, stop=["a"])


@pytest.mark.parametrize("short", [True, False])
def test_rows_that_have_ended_change_nothing_for_the_others(
    model: gpt.GPT, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not short:
        monkeypatch.setattr(decode_step, "fits", lambda model: False)
    for temperature, seeds in ((0.0, None), (1.0, [4, 5, 6, 7])):
        free = generate(model, PROMPTS, 12, temperature, seeds=seeds)
        stops = {row.tokens[2] for row in free[:3]} - set(free[3].tokens)
        ended = generate(model, PROMPTS, 12, temperature, seeds=seeds, stop_ids=sorted(stops))
        assert len(ended[3].tokens) == 12 and min(len(row.tokens) for row in ended) <= 3
        for a, b in zip(free, ended, strict=True):
            assert a.tokens[: len(b.tokens)] == b.tokens


def test_with_a_seed_of_its_own_a_row_is_the_same_in_any_company(model: gpt.GPT) -> None:
    together = generate(model, PROMPTS, 10, seeds=[1, 2, 3, 4])
    for prompt, seed, row in zip(PROMPTS, [1, 2, 3, 4], together, strict=True):
        assert generate(model, [prompt], 10, seeds=[seed])[0].tokens == row.tokens
    assert generate(model, [PROMPTS[0]] * 2, 10, seeds=[1, 1])[1].tokens == together[0].tokens
    assert generate(model, [PROMPTS[0]], 10, seeds=[9])[0].tokens != together[0].tokens


@given(st.integers(0, 2**31), st.sampled_from([0, 5]), st.sampled_from([0.3, 1.0]))
@settings(max_examples=20)
def test_quantiles_cut_the_line_of_probabilities_in_their_order(seed: int, top_k: int, top_p: float) -> None:
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(seed))
    quantiles = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = sample_at(logits.expand(2000, 20), 0.7, top_k, top_p, quantiles)
    assert drawn.tolist() == sorted(drawn.tolist())
    p = (logits[0] / 0.7).softmax(-1).double()
    ranked = p.argsort(descending=True)
    kept = ranked[: top_k or 20]
    p = p / p[kept].sum()
    reached = (p[kept].cumsum(0) - p[kept]) < top_p
    expected = torch.zeros(20, dtype=torch.float64).index_copy(0, kept[reached], p[kept[reached]])
    shares = torch.bincount(drawn, minlength=20) / 2000
    torch.testing.assert_close(shares.double(), expected / expected.sum(), rtol=0, atol=1.1e-3)
