"""Every architecture: what it counts, where its tokens stand, what attention sees, that it learns on any layout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import ranks
import torch
from pydantic import ValidationError

from headwater_model import forward, gpt, pretrained, runtime
from headwater_model.attention import CoreAttention
from headwater_model.config import ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig
from headwater_model.generation import generate
from headwater_model.positions import alibi_slopes
from headwater_model.trainer import Trainer, next_token_loss

OPENAI: dict[str, Any] = {"position": "learned", "norm": "layernorm", "biases": True, "tie_embeddings": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {**OPENAI, "activation": "gelu_tanh", "init": "scaled"},
    "neox": {
        "rope_share": 0.25, "norm": "layernorm", "biases": True, "activation": "gelu", "parallel_residual": True,
        "init": "small",
    },
    "opt": {**OPENAI, "activation": "relu", "init": "normal", "dropout": 0.1},
    "llama": {"kv_heads": 2, "rope_scaling": 8.0},
    "alibi": {"position": "alibi", "activation": "geglu", "kv_heads": 2, "norm": "layernorm"},
    "sinusoids": {"position": "sinusoidal", "activation": "squared_relu", "qkv_bias": True, "init": "t_fixup"},
    "none": {"position": "none", "head_width": 24},
    "prefix": {"kind": "prefix", "position": "learned", "tie_embeddings": True},
    "experts": {"experts": 4, "kv_heads": 2, "tie_embeddings": True},
    "switch": {"experts": 4, "experts_per_token": 1, "activation": "gelu", "kv_heads": 1},
}  # fmt: skip
EVERY = pytest.mark.parametrize("family", FAMILIES)


def config(family: str, **fields: Any) -> ModelConfig:
    small = {"layers": 2, "hidden": 64, "heads": 4, "vocab": 512, "context": 32}
    return ModelConfig(**{**small, **FAMILIES[family], **fields})


def model_of(family: str, **fields: Any) -> gpt.GPT:
    """Without dropout, with biases and norms that are not at their start."""
    model = gpt.build(config(family, dropout=0.0, **fields), seed=3)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


def ids(rows: int, size: int, seed: int = 4) -> torch.Tensor:
    return torch.randint(0, 512, (rows, size), generator=torch.Generator().manual_seed(seed))


@EVERY
def test_what_a_shape_counts_is_what_is_built(family: str) -> None:
    shape = config(family)
    model = gpt.build(shape, seed=3)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
    matrices = {n: p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n}
    for name in matrices:
        if ".experts." in name:
            matrices[name] = matrices[name] * shape.experts_per_token // shape.experts
    tied = shape.vocab * shape.hidden if shape.tie_embeddings else 0
    assert sum(matrices.values()) + tied == shape.matrix_parameters


@EVERY
def test_a_text_stands_where_it_would_stand_alone(family: str) -> None:
    """Behind padding on the left, behind other rows of a packed sequence, for training and for inference."""
    model = model_of(family)
    tokens, before = ids(2, 12), ids(2, 7, seed=5)
    both = torch.cat([before, tokens], 1)
    hidden = torch.arange(19)[None].expand(2, -1) < 7
    segments = torch.tensor([1] * 7 + [2] * 12).expand(2, -1)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            alone = model(tokens).detach()
            for mask in (forward.attention_mask(hidden), segments):
                found = model(both, None, mask)[:, 7:].detach()
                torch.testing.assert_close(found, alone, rtol=1e-4, atol=2e-5)


@EVERY
def test_the_cache_gives_the_probabilities_of_a_full_pass(family: str) -> None:
    model = model_of(family)
    prompts = [[5, 6, 7, 8, 9], [11], list(range(100, 115))]
    for prompt, row in zip(prompts, generate(model, prompts, 12, seed=3), strict=True):
        tokens = torch.tensor([prompt + row.tokens])
        prefix = torch.tensor([len(prompt)]) if model.kind == "prefix" else None
        logits = model(tokens[:, :-1], prefix=prefix).log_softmax(-1)[0, len(prompt) - 1 :]
        full = logits.gather(-1, tokens[0, len(prompt) :, None])[:, 0]
        assert row.logprobs == pytest.approx(full.tolist(), abs=2e-5)


def test_positions_tell_an_order() -> None:
    """Without positions and in one layer, the last token's logits do not depend on the order of those before it."""
    swapped = ids(1, 12)[:, [3, 1, 0, 2, 4, 5, 6, 7, 8, 9, 10, 11]]
    for family in ("gpt2", "neox", "alibi", "sinusoids", "none"):
        model = model_of(family, layers=1, tie_embeddings=False)
        same = torch.allclose(model(ids(1, 12))[:, -1], model(swapped)[:, -1], atol=1e-5)
        assert same == (family == "none"), family


def test_linear_biases_are_the_papers() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(6) == [2.0**-i for i in (2, 4, 6, 8, 1, 3)]
    core = CoreAttention(gpt.build(config("alibi"), seed=1).config, 1, alibi=True)
    draw = torch.Generator().manual_seed(0)
    qkv = [torch.randn(150, 2, 4, 16, generator=draw).requires_grad_() for _ in range(3)]
    upstream = torch.randn(150, 2, 64, generator=draw)
    places, slopes = torch.arange(150), torch.tensor([2.0**-i for i in (2, 4, 6, 8)])
    later, apart = places > places[:, None], places[:, None] // 60 != places // 60
    scores = torch.einsum("qbhd,kbhd->bhqk", *qkv[:2]) / 4 - slopes[:, None, None] * (places[:, None] - places)
    for hidden, given in ((later, None), (later | apart, (later | apart)[None, None])):
        chances = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        expected = torch.einsum("bhqk,kbhd->qbhd", chances, qkv[2]).flatten(2)
        blocks = core(*qkv, given)
        torch.testing.assert_close(blocks, expected, rtol=1e-4, atol=1e-4)
        gradients = (torch.autograd.grad(out, qkv, upstream, retain_graph=True) for out in (blocks, expected))
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(core(*qkv, given), expected, rtol=1e-4, atol=1e-4)


def test_a_prefix_is_read_in_both_directions_and_what_follows_in_one() -> None:
    model, tokens = model_of("prefix"), ids(2, 20)
    prefix = torch.tensor([8, 0])
    before = model(tokens, prefix=prefix)
    torch.testing.assert_close(before[1:], model(tokens[1:]), rtol=1e-4, atol=1e-5)  # a prefix of nothing
    for changed, seen_from in ((7, 0), (12, 12)):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % 512
        differs = (model(other, prefix=prefix)[0] - before[0]).abs().amax(-1) > 1e-6
        assert differs.tolist() == [place >= seen_from for place in range(20)]
    with pytest.raises(ValueError, match="not both"):
        model(tokens, None, torch.ones(2, 20, dtype=torch.long), prefix=prefix)


def test_a_table_of_positions_has_an_end() -> None:
    with pytest.raises(ValueError, match="33 positions, but the model has 32"):
        model_of("gpt2")(ids(1, 33))


def test_dropout_works_in_training_alone() -> None:
    for fields in ({"dropout": 0.3}, {"attention_dropout": 0.3}):
        model, tokens = gpt.build(config("llama", **fields), seed=3), ids(2, 20)
        assert not torch.equal(model(tokens), model(tokens))
        model.eval()
        assert torch.equal(model(tokens), model(tokens))


def test_the_gradient_of_the_router_includes_that_of_the_balance() -> None:
    """Switch (arXiv:2101.03961, equations 4 to 6): experts x sum over experts of share of tokens x mean probability,
    times the tokens, since gradients are divided by their number in the end."""
    tokens, gradients = ids(2, 20), {}
    for weight in (0.0, 0.5):
        model = gpt.build(config("switch", layers=1, balance_loss=weight), seed=3)
        router, seen = model.decoder.layers[0].mlp.router, []
        router.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach()))
        model(tokens, labels=tokens).sum().backward()
        gradients[weight] = router.weight.grad.clone()
    leaf = router.weight.detach().clone().requires_grad_()
    probabilities = (seen[0].flatten(0, 1) @ leaf.t()).softmax(-1)
    share = torch.bincount(probabilities.argmax(-1), minlength=4) / 40
    (0.5 * 4 * (share * probabilities.mean(0)).sum() * 40).backward()
    torch.testing.assert_close(gradients[0.5] - gradients[0.0], leaf.grad, rtol=1e-3, atol=1e-5)
    assert leaf.grad.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("fan_in", {"word_embeddings": 0.02, "linear_qkv": 64**-0.5, "linear_fc2": 256**-0.5 / 2}),
        ("normal", {"word_embeddings": 0.02, "linear_qkv": 0.02, "linear_fc2": 0.02}),
        ("scaled", {"word_embeddings": 0.02, "linear_fc1": 0.02, "linear_proj": 0.01, "linear_fc2": 0.01}),
        ("small", {"word_embeddings": (2 / 320) ** 0.5, "linear_proj": (2 / 320) ** 0.5}),
        ("t_fixup", {"word_embeddings": 1 / 8 * 18**-0.25, "linear_proj": 64**-0.5 * 0.67 * 2**-0.25}),
    ],
)
def test_weights_have_the_scale_of_their_recipe(init: str, expected: dict[str, float]) -> None:
    model = gpt.build(config("gpt2", init=init), seed=3)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        for part, std in expected.items():
            if part in name and name.endswith("weight") and "layernorm" not in name:
                assert weight.std().item() == pytest.approx(std, rel=0.05), name


def test_t_fixup_shrinks_values_alone_of_a_groups_projections() -> None:
    weight = gpt.build(config("llama", init="t_fixup"), seed=3).decoder.layers[0].self_attention.linear_qkv.weight
    queries, key, value = weight.view(2, 4, 16, 64).split([2, 1, 1], 1)
    for part, fan_out, factor in ((queries, 64, 1), (key, 32, 1), (value, 32, 0.67 * 2**-0.25)):
        assert part.std().item() == pytest.approx((2 / (64 + fan_out)) ** 0.5 * factor, rel=0.08)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 100, "heads": 3}, "hidden 100 is no multiple of heads 3"),
        ({"heads": 4, "kv_heads": 3}, "no multiple of kv_heads"),
        ({"hidden": 36, "heads": 4}, "even number of channels"),
        ({"position": "alibi", "rope_share": 0.5}, "go with position rotary"),
        ({"experts": 2, "experts_per_token": 3}, "more than experts"),
        ({"experts": 2, "biases": True}, "no biases"),
        ({"init_std": 0.1}, "init_std goes with"),
    ],
)
def test_options_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**fields)


def steps(
    family: str, tokens: torch.Tensor, count: int, dtype: torch.dtype = torch.float32
) -> list[tuple[float, float]]:
    """(loss, norm of the gradient) of each step on the same tokens, in two micro-batches."""
    trainer = Trainer(gpt.build(config(family), seed=5), OptimizerConfig(lr=3e-3), ScheduleConfig(steps=100, warmup=2))
    batch = {"tokens": tokens[:, :-1], "labels": tokens[:, 1:]}
    if family == "prefix":
        batch["prefix"] = torch.arange(len(tokens)) * 3
        batch["loss_mask"] = torch.arange(tokens.size(1) - 1)[None] >= batch["prefix"][:, None]
    micro = [{n: t[half] for n, t in batch.items()} for half in (slice(0, None, 2), slice(1, None, 2))]
    rows = [trainer.step(micro, next_token_loss) for _ in range(count)]
    return [(row["loss"], row["grad_norm"]) for row in rows]


@pytest.fixture(scope="module")
def text(tokens_folder: Path) -> torch.Tensor:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(tokens_folder / "train"))  # what it gives lives as long as it does
    return torch.from_numpy(dataset[0].astype("int64"))[: 8 * 33].view(8, 33)


@EVERY
def test_each_family_learns(family: str, text: torch.Tensor) -> None:
    losses = [loss for loss, _ in steps(family, text, 25)]
    assert losses[0] == pytest.approx(6.24, abs=0.35) and losses[-1] < losses[0] - 1.5, losses


@pytest.mark.parametrize("family", ["opt", "experts"])
def test_a_checkpoint_goes_on_to_the_same_weights(family: str, text: torch.Tensor, tmp_path: Path) -> None:
    """With dropout, whose generator is part of it, and with experts."""

    def trainer() -> Trainer:
        shape = config(family, attention_dropout=0.1)
        return Trainer(gpt.build(shape, seed=5), OptimizerConfig(), ScheduleConfig(steps=10))

    batch = [{"tokens": text[:, :-1], "labels": text[:, 1:]}]
    first = trainer()
    first.step(batch, next_token_loss)
    first.save(tmp_path / "saved")
    first.step(batch, next_token_loss)
    torch.manual_seed(77)
    second = trainer()
    second.load(tmp_path / "saved")
    second.step(batch, next_token_loss)
    for (name, a), (_, b) in zip(first.module.named_parameters(), second.module.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.fixture(scope="module")
def two_ranks(text: torch.Tensor, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks find: axis -> "steps" or "read" -> family -> rows, or why a layout refuses the family."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(text, folder / "text.pt")
    for family in SPLIT:
        pretrained.save(folder / family, model_of(family), config(family), tokenizer_folder, "lm")
    ranks.run("test_architectures", folder, 2)
    return json.loads((folder / "found.json").read_text()) | {"folder": folder}


def test_each_family_learns_the_same_on_two_ranks(text: torch.Tensor, two_ranks: dict[str, Any]) -> None:
    """In float32 only the order of sums differs between layouts; where it turns a token's choice of experts, more."""
    for family in SPLIT:
        one, near = steps(family, text, 2), 1e-3 if FAMILIES[family].get("experts") else 1e-5
        for axis in ("tensor", "pipeline"):
            found = two_ranks[axis]["steps"][family]
            if (axis, family) in REFUSED:
                assert found == REFUSED[axis, family]
                continue
            for (loss, norm), (loss_of_two, norm_of_two) in zip(one, found, strict=True):
                assert loss == pytest.approx(loss_of_two, abs=near), (family, axis)
                assert norm == pytest.approx(norm_of_two, rel=10 * near), (family, axis)


def test_a_folder_read_on_two_ranks_is_the_model(text: torch.Tensor, two_ranks: dict[str, Any]) -> None:
    for family in SPLIT:
        loss = evaluated(pretrained.load(two_ranks["folder"] / family).model, text)
        assert loss == pytest.approx(evaluated(model_of(family), text), abs=1e-5)
        for axis in ("tensor", "pipeline"):
            if (axis, family) not in REFUSED:
                assert two_ranks[axis]["read"][family] == pytest.approx(loss, abs=1e-5), (family, axis)


SPLIT = [family for family in FAMILIES if family != "opt"]  # dropout: other masks in other layouts
REFUSED = {
    ("tensor", "experts"): "experts need parallel.tensor 1: Megatron splits them with sequence parallelism only",
    ("tensor", "switch"): "kv_heads 1 is no multiple of parallel.tensor 2",
}


def evaluated(model: gpt.GPT, text: torch.Tensor) -> float:
    trainer = Trainer(model, OptimizerConfig(), ScheduleConfig())
    return trainer.evaluate([{"tokens": text[:, :-1], "labels": text[:, 1:]}], next_token_loss)["loss"]


def main(folder: Path) -> None:
    from megatron.core import parallel_state

    torch.set_num_threads(1)
    text, found = torch.load(folder / "text.pt"), {}
    for axis in ("tensor", "pipeline"):
        runtime.initialize(ParallelConfig(**{axis: 2}), seed=1)
        rows: dict[str, dict[str, Any]] = {"steps": {}, "read": {}}
        for family in SPLIT:
            try:
                rows["steps"][family] = steps(family, text, 2)
                rows["read"][family] = evaluated(pretrained.load(folder / family).model, text)
            except ValueError as refused:
                rows["steps"][family] = str(refused)
        found[axis] = rows
        parallel_state.destroy_model_parallel()
    if os.environ["RANK"] == "0":
        (folder / "found.json").write_text(json.dumps(found))
