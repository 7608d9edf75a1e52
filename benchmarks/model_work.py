"""What benchmarks/model.py measures, each in a process of its own: `python model_work.py FUNCTION ARGUMENTS`.

A contestant builds its model, warms up, and then trains as many steps as each line of its standard input says; it
answers with the wall and CPU seconds that they took. Between lines it sleeps, so several can take turns.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS, HIDDEN, HEADS, VOCABULARY, POSITIONS, BATCH = 6, 256, 4, 8192, 512, 8
LLAMA_FFN = 704
"""8/3 of the width, rounded up to 64: as many weights as a plain MLP of four times the width."""
LR, BETAS, WEIGHT_DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0
WARM = 3
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Turns:
    """Counts steps; where a turn ends it reports, and waits for the next."""

    def __init__(self, warm: int = WARM) -> None:
        self.left = warm
        self.clock = (time.monotonic(), time.process_time())

    def step_done(self, made: Any = None) -> None:
        """Called after every step, with what it made if that is to be compared; returns when the next may start."""
        self.left -= 1
        if self.left:
            return
        wall, cpu = time.monotonic() - self.clock[0], time.process_time() - self.clock[1]
        # Not to sys.stdout: what else a contestant prints may have been sent elsewhere.
        print(json.dumps({"wall_s": wall, "cpu_s": cpu, "made": made}), file=sys.__stdout__, flush=True)
        line = sys.stdin.readline()
        if not line:
            sys.stdout.flush()
            os._exit(0)
        self.left = int(line)
        self.clock = (time.monotonic(), time.process_time())


def batches() -> Any:
    """Endless batches of (ids, the ids that follow), int64 [batch, positions]; ids are drawn as 1/rank."""
    generator = torch.Generator().manual_seed(1)
    frequency = 1.0 / torch.arange(1, VOCABULARY + 1)
    ids = torch.multinomial(frequency, 64 * BATCH * (POSITIONS + 1), replacement=True, generator=generator)
    rows = ids.view(64, BATCH, POSITIONS + 1)
    while True:
        for batch in rows:
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


# ---- the contestants


def headwater(precision: str, shape: str) -> None:
    """headwater_model's trainer on one rank, or on as many as the launcher started."""
    from headwater_model import gpt, runtime, trainer
    from headwater_model.config import ModelConfig, OptimizerConfig, ParallelConfig, ScheduleConfig

    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    runtime.initialize(ParallelConfig(data=ranks), seed=1)
    config = ModelConfig(layers=LAYERS, hidden=HIDDEN, heads=HEADS, vocab=VOCABULARY, context=POSITIONS)
    train = trainer.Trainer(
        gpt.build(config, dtype=TYPES[precision], seed=1),
        OptimizerConfig(lr=LR, beta1=BETAS[0], beta2=BETAS[1], weight_decay=WEIGHT_DECAY, clip=CLIP),
        ScheduleConfig(kind="cosine", warmup=10, steps=10_000),
    )
    turns = Turns()
    share = BATCH // ranks
    for ids, following in batches():
        mine = slice(rank * share, (rank + 1) * share)
        train.step([{"tokens": ids[mine], "labels": following[mine]}], trainer.next_token_loss)
        turns.step_done()


def nanogpt(precision: str, compiled: str) -> None:
    """The loop of karpathy/nanoGPT's train.py; AdamW fused, which it uses on CUDA only."""
    torch.manual_seed(1)
    model = NanoGPT(Shape())
    step = nanogpt_step(model, precision, LR, BETAS, warmup=10, steps=10_000, compiled=compiled == "compiled")
    turns = Turns()
    for number, (ids, following) in enumerate(batches()):
        step(number, ids, following)
        turns.step_done()


def nanogpt_step(
    model: NanoGPT,
    precision: str,
    lr: float,
    betas: tuple[float, float],
    warmup: int,
    steps: int,
    compiled: bool = False,
) -> Callable[[int, Tensor, Tensor], None]:
    """One step of the loop as a function of number and batch; linear warm-up, then a cosine to a tenth."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    run = torch.compile(model) if compiled else model

    def step(number: int, ids: Tensor, following: Tensor) -> None:
        rest = min(max(number - warmup, 0) / max(steps - warmup, 1), 1.0)
        share = min((number + 1) / (warmup + 1), 1.0) * (0.1 + 0.45 * (1 + math.cos(math.pi * rest)))
        for group in optimizer.param_groups:
            group["lr"] = lr * share
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = run(ids, following)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@dataclass(frozen=True)
class Shape:
    """Of a GPT-2; the default is the benchmark's."""

    layers: int = LAYERS
    hidden: int = HIDDEN
    heads: int = HEADS
    vocabulary: int = VOCABULARY
    positions: int = POSITIONS
    tied: bool = False


class NanoGPT(nn.Module):
    """The model of karpathy/nanoGPT's model.py: GPT-2 without biases or dropout."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.positions = nn.Embedding(shape.positions, shape.hidden)
        self.blocks = nn.ModuleList(NanoBlock(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden, bias=False)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                out = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.layers) if out else 0.02)
        if shape.tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor, following: Tensor) -> Tensor:
        return self.losses(ids, following, "mean")

    def losses(self, ids: Tensor, following: Tensor, reduction: str = "none") -> Tensor:
        """Nats, [batch, positions] or their mean."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.size(1)))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), following.view(-1), reduction=reduction)
        return loss if reduction == "mean" else loss.view(ids.shape)


class NanoBlock(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, self.heads = shape.hidden, shape.heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, width = x.shape
        heads = self.qkv(self.norm_1(x)).split(width, dim=2)
        q, k, v = (t.view(batch, positions, self.heads, width // self.heads).transpose(1, 2) for t in heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(batch, positions, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


def transformers(precision: str, shape: str) -> None:
    """transformers' Trainer on a model of the same size."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.manual_seed(1)
    model: Any
    if shape == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False, use_cache=False,
            )
        )  # fmt: skip
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=LLAMA_FFN, num_hidden_layers=LAYERS,
                num_attention_heads=HEADS, max_position_embeddings=POSITIONS, use_cache=False,
            )
        )  # fmt: skip
    turns = Turns()

    class Pause(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step_done()

    class Rows(torch.utils.data.Dataset):
        rows = [row for ids, _ in itertools.islice(batches(), 64) for row in ids]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"input_ids": self.rows[index], "labels": self.rows[index]}

    arguments = TrainingArguments(
        output_dir="unused", use_cpu=True, bf16=precision == "bf16", per_device_train_batch_size=BATCH,
        max_steps=100_000, learning_rate=LR, adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP, lr_scheduler_type="cosine", warmup_steps=10, optim="adamw_torch_fused",
        logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Pause()]).train()


# ---- generation: a step is NEW tokens for each of a batch of prompts, the likeliest each time

PROMPT, NEW = 32, 128


def write_model(precision: str, folder: str) -> None:
    """The model that both generate with, as a Hugging Face folder; fresh weights write text as fast as trained ones."""
    from tokenizers import Tokenizer, models

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    runtime.initialize(seed=1)
    config = ModelConfig(layers=LAYERS, hidden=HIDDEN, heads=HEADS, vocab=VOCABULARY, context=POSITIONS)
    words = {"<|endoftext|>": 0, **{f"w{i}": i for i in range(1, VOCABULARY)}}
    tokenizer = Path(folder) / "tokenizer"
    tokenizer.mkdir()
    Tokenizer(models.WordLevel(words, unk_token="w1")).save(str(tokenizer / "tokenizer.json"))
    settings = {"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    model = gpt.build(config, dtype=TYPES[precision], seed=1)
    pretrained.save(Path(folder) / "model", model, config, tokenizer)


def _prompts(batch: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, VOCABULARY, (batch, PROMPT), generator=generator).tolist()


def generate_headwater(precision: str, folder: str, batch: str) -> None:
    from headwater_model import generation, pretrained, runtime

    runtime.initialize(seed=1)
    model = pretrained.load(Path(folder) / "model", dtype=TYPES[precision]).model
    turns = Turns()
    while True:
        rows = generation.generate(model, _prompts(int(batch)), NEW, temperature=0)
        turns.step_done([row.tokens for row in rows])


def generate_transformers(precision: str, folder: str, batch: str) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(f"{folder}/model", dtype=TYPES[precision]).eval()
    ids = torch.tensor(_prompts(int(batch)))
    turns = Turns()
    while True:
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
        turns.step_done(found[:, PROMPT:].tolist())


def peak(precision: str, size: str) -> None:
    """A square matrix product; a step is 10 of them."""
    a, b = (torch.randn(int(size), int(size), dtype=TYPES[precision]) for _ in range(2))
    turns = Turns()
    while True:
        for _ in range(10):
            a @ b
        turns.step_done()


def keep_pages() -> None:
    """What headwater_model.cpu.keep_pages does, for a peer."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0)
    libc.mallopt(-1, 2**31 - 1)


if __name__ == "__main__":
    name, threads, *arguments = sys.argv[1:]
    torch.set_num_threads(int(threads))
    if os.environ.get("KEEP_PAGES"):
        keep_pages()
    globals()[name](*arguments)
