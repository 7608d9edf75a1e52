"""LoRA on one rank: what attaching, training, merging and saving leave as it was, and what they change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from headwater_model import forward, generation, gpt, lora, pretrained
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig, OptimizerConfig, ScheduleConfig
from headwater_model.huggingface.peft import save_adapter
from headwater_model.lora import LoraConfig
from headwater_model.trainer import Trainer, next_token_loss

LORA = LoraConfig(rank=4, alpha=8.0)
SHAPES = {
    "default": {},
    "scalar head": {"head": "scalar"},
    "biases, learned positions, one table": {
        "position": "learned", "norm": "layernorm", "activation": "gelu_tanh", "biases": True, "tie_embeddings": True,
    },
    "experts": {"experts": 4},
}  # fmt: skip


def build(shape: ModelConfig, head: gpt.Head = "lm", dtype: torch.dtype = torch.float32, **fields) -> gpt.GPT:
    return gpt.build(ModelConfig(**{**shape.model_dump(), **fields}), head, dtype, seed=3)


def batch(step: int, vocab: int) -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(vocab, (4, 17), generator=torch.Generator().manual_seed(step))
    return [{"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}]


def train(model: gpt.GPT, steps: int = 3, kind: str = "adamw") -> Trainer:
    trainer = Trainer(model, OptimizerConfig(lr=0.02, kind=kind), ScheduleConfig(kind="constant", warmup=0, steps=9))
    for step in range(steps):
        trainer.step(batch(step, model.vocab_size), loss_of(model))
    return trainer


def loss_of(model: gpt.GPT):
    if model.head == "lm":
        return next_token_loss
    return lambda output, rows: (((output - rows["tokens"] / 512) ** 2).sum(), torch.tensor(output.numel()), {})


@pytest.mark.parametrize("name", SHAPES)
def test_attaching_changes_no_logit_training_no_base_weight_and_merging_no_logit(name: str, shape: ModelConfig) -> None:
    model = build(shape, **SHAPES[name])
    tokens = batch(9, shape.vocab)[0]["tokens"]
    with torch.no_grad():
        before, base = model(tokens), {n: p.clone() for n, p in model.named_parameters()}
        lora.attach(model, LORA, seed=1)
        assert torch.equal(model(tokens), before)
    train(model)
    changed = {n for n, p in model.named_parameters() if n not in base or not torch.equal(p, base[n])}
    adapters = {n for n, _ in model.named_parameters() if "lora_" in n}
    assert changed == adapters | ({"output_layer.weight"} if model.head == "scalar" else set())
    with torch.no_grad():
        trained = model(tokens)
        with lora.detached(model):
            if model.head == "lm":
                assert torch.equal(model(tokens), before)
        lora.merge(model)
        assert {n for n, _ in model.named_parameters()} == set(base)
        assert all(p.requires_grad for p in model.parameters())
        assert (trained - before).abs().max() > 1e-2
        assert torch.allclose(model(tokens), trained, atol=1e-5)


@pytest.mark.parametrize("name", ["default", "experts"])
def test_as_many_weights_learn_as_the_formula_says(name: str, shape: ModelConfig) -> None:
    config = ModelConfig(**{**shape.model_dump(), **SHAPES[name]})
    for targets in (("qkv",), ("attention_out", "mlp_in"), ("mlp_out", "qkv")):
        wanted = LoraConfig(rank=3, targets=targets)
        model = build(shape, **SHAPES[name])
        lora.attach(model, wanted)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == wanted.parameters(config)


def test_the_count_of_llama_2_7b_is_what_its_matrices_give() -> None:
    """By hand, rank 8 on queries, keys and values and on the output: 32 x 8 x ((4096 + 3 x 4096) + (4096 + 4096))."""
    shape = ModelConfig(layers=32, hidden=4096, heads=32, ffn=11008, vocab=32000, context=4096)
    assert LoraConfig(rank=8, targets=("qkv", "attention_out")).parameters(shape) == 6_291_456


@pytest.mark.parametrize("kind", ["muon", "sgd", "adafactor"])
def test_other_optimisers_train_adapters(kind: str, shape: ModelConfig) -> None:
    model = build(shape)
    lora.attach(model, LORA, seed=1)
    one = batch(0, shape.vocab)
    trainer = Trainer(model, OptimizerConfig(lr=0.02, kind=kind), ScheduleConfig(kind="constant", warmup=0, steps=20))
    losses = [trainer.step(one, next_token_loss)["loss"] for _ in range(12)]
    assert losses[-1] < losses[0] - 1e-3  # Adafactor's steps are relative to the weights, and B begins at 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(dtype: torch.dtype, shape: ModelConfig, tmp_path: Path) -> None:
    def trainer() -> Trainer:
        model = build(shape, dtype=dtype)
        lora.attach(model, LoraConfig(rank=4, dropout=0.2), seed=1)
        return Trainer(model, OptimizerConfig(lr=0.02), ScheduleConfig(kind="linear", warmup=1, steps=9))

    unbroken = trainer()
    for step in range(2):
        unbroken.step(batch(step, shape.vocab), next_token_loss)
    unbroken.save(tmp_path / "two")
    resumed = trainer()
    resumed.load(tmp_path / "two")
    rows = [one.step(batch(2, shape.vocab), next_token_loss) for one in (unbroken, resumed)]
    assert rows[0] == rows[1]
    pairs = zip(unbroken.module.parameters(), resumed.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_layers_that_are_computed_again_give_adapters_the_same_gradients(shape: ModelConfig) -> None:
    rows = []
    for again in (False, True):
        model = build(shape)
        if again:
            model.config.recompute_granularity, model.config.recompute_method = "full", "uniform"
            model.config.recompute_num_layers = 1
        lora.attach(model, LORA, seed=1)
        trainer = train(model, 2)
        rows.append(trainer.step(batch(2, shape.vocab), next_token_loss))
    assert rows[0] == rows[1] and rows[0]["grad_norm"] > 0


def test_generation_by_the_kernel_follows_the_adapters(shape: ModelConfig) -> None:
    model = build(shape)
    lora.attach(model, LORA, seed=1)
    train(model)
    prompts = [[5, 6, 7, 8], [9, 10]]
    fast = generation.generate(model, prompts, 12, temperature=0)
    for prompt, written in zip(prompts, fast, strict=True):
        ids = torch.tensor([prompt + written.tokens])
        again = forward.token_logprobs(model, ids)[0, len(prompt) - 1 :]
        assert torch.allclose(again, torch.tensor(written.logprobs), atol=1e-4)
    lora.merge(model)
    assert [w.tokens for w in generation.generate(model, prompts, 12, temperature=0)] == [w.tokens for w in fast]


def test_saving_writes_the_merged_model_and_leaves_the_adapters(
    shape: ModelConfig, tokenizer_folder: Path, tmp_path: Path
) -> None:
    model = build(shape)
    lora.attach(model, LORA, seed=1)
    train(model)
    tokens = batch(9, shape.vocab)[0]["tokens"]
    with torch.no_grad():
        before = model(tokens)
        assert pretrained.save(tmp_path, model, shape, tokenizer_folder) == "LlamaForCausalLM"
        assert torch.equal(model(tokens), before)
        assert torch.allclose(pretrained.load(tmp_path).model(tokens), before, atol=1e-5)
    assert model.lora == LORA


@pytest.mark.parametrize("head", ["lm", "scalar"])
def test_the_adapters_file_means_the_same_by_pefts_arithmetic(
    head: gpt.Head, shape: ModelConfig, tokenizer_folder: Path, tmp_path: Path
) -> None:
    """PEFT's LoRA layer: W + lora_alpha / r lora_B lora_A, for every module that target_modules names the end of."""
    model = build(shape, head)
    lora.attach(model, LORA, seed=1)
    pretrained.save(tmp_path / "base", model, shape, tokenizer_folder, head)
    train(model)
    save_adapter(tmp_path / "adapter", model, shape, "base")
    about = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    for name in list(weights):
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in about["target_modules"]:
            low, high = (adapter.pop(f"base_model.model.{module}.lora_{part}.weight") for part in "AB")
            weights[name] += about["lora_alpha"] / about["r"] * high @ low
        elif module in about.get("modules_to_save", ()):
            weights[name] = adapter.pop(f"base_model.model.{name}")
    assert not adapter
    save_file(weights, tmp_path / "base" / "model.safetensors")
    tokens = batch(9, shape.vocab)[0]["tokens"]
    with torch.no_grad():
        assert torch.allclose(pretrained.load(tmp_path / "base").model(tokens), model(tokens), atol=1e-5)


def test_adapters_that_peft_has_no_names_for_are_refused(shape: ModelConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no adapters"):
        save_adapter(tmp_path, build(shape), shape, "base")
    odd = ModelConfig(**{**shape.model_dump(), "experts": 4})
    model = build(odd)
    lora.attach(model, LORA)
    with pytest.raises(UserError, match="mixtral"):
        save_adapter(tmp_path, model, odd, "base")


def test_dropout_drops_in_training_only(shape: ModelConfig) -> None:
    model = build(shape)
    lora.attach(model, LoraConfig(rank=4, dropout=0.5), seed=1)
    train(model)
    tokens = batch(9, shape.vocab)[0]["tokens"]
    with torch.no_grad():
        assert not torch.equal(model(tokens), model(tokens))
        model.eval()
        assert torch.equal(model(tokens), model(tokens))


def test_what_cannot_be_is_refused(shape: ModelConfig) -> None:
    model = build(shape)
    lora.attach(model, LORA)
    with pytest.raises(ValueError, match="adapters already"):
        lora.attach(model, LORA)
    with pytest.raises(ValidationError):
        LoraConfig(targets=())
