"""What benchmarks/recipe.py measures, each in a process of its own: `python recipe_work.py FUNCTION ARGUMENTS`.

A recipe trains for a number of CPU seconds on one thread: some steps on a throwaway model say how many fit.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TRIAL = 8
"""Steps that are timed beforehand; the first two do not count."""
HELDOUT = 100_000
"""Tokens."""


def headwater(tokens: str, tokenizer: str, seconds: str, seed: str, settings: str) -> dict:
    """A plan and pretrain section of configs/, through the trainer that the stage uses."""
    from headwater_model import gpt, runtime, trainer
    from headwater_model.config import ModelConfig, PretrainConfig
    from headwater_model.heldout import HeldOut
    from headwater_model.pretrained import TYPES, end_of_text, read_tokenizer
    from headwater_model.tokens import TrainingData

    given = json.loads(settings)
    plan, config = given["plan"], PretrainConfig(**given["pretrain"])
    runtime.initialize(seed=int(seed))
    words = read_tokenizer(Path(tokenizer))
    end = end_of_text(words, Path(tokenizer))
    vocabulary = -(-words.get_vocab_size() // 64) * 64
    shape = ModelConfig(**plan["model"], vocab=vocabulary, context=plan["context"])
    optimizer = config.optimizer.model_copy(update={"lr": plan["lr"]})

    def fresh(steps: int) -> tuple[trainer.Trainer, Callable[[int], Any]]:
        train = trainer.Trainer(
            gpt.build(shape, dtype=TYPES[config.precision], seed=int(seed)),
            optimizer,
            config.schedule.over(steps, steps * plan["batch"] * shape.context),
        )
        data = TrainingData(
            {"tokens": Path(tokens)}, config.data, shape.context, steps * plan["batch"], int(seed), end, index
        )

        def step(number: int) -> None:
            batches = data.batch(number * plan["batch"], plan["batch"], config.micro_batch, 0, 1)
            train.step(batches, trainer.next_token_loss)

        return train, step

    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder)
        steps = _fit(fresh(10 * TRIAL)[1], float(seconds))
        train, step = fresh(steps)
        spent = _spend(step, steps)
    heldout = HeldOut(Path(tokens), shape.context, words, end, HELDOUT)
    loss = train.evaluate(heldout.batches(16, 0, 1), trainer.next_token_loss)["loss"]
    made = steps * plan["batch"] * shape.context
    return {"bits": heldout.bits_per_byte(loss), "steps": steps, "tokens": made, "cpu_s": spent}


def nanogpt(tokens: str, tokenizer: str, seconds: str, seed: str, settings: str) -> dict:
    """karpathy/nanoGPT's train.py: its loop and its random windows, with the settings given."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from model_work import NanoGPT, Shape, nanogpt_step

    from headwater_model import runtime
    from headwater_model.heldout import HeldOut
    from headwater_model.pretrained import end_of_text, read_tokenizer

    runtime.initialize(seed=int(seed))
    given = json.loads(settings)
    words = read_tokenizer(Path(tokenizer))
    end = end_of_text(words, Path(tokenizer))
    vocabulary = -(-words.get_vocab_size() // 64) * 64
    shape = Shape(given["layers"], given["hidden"], given["heads"], vocabulary, given["context"], tied=True)
    documents = IndexedDataset(str(Path(tokens) / "train"))
    stream = torch.cat([torch.from_numpy(documents[i].astype("int64")) for i in range(len(documents))])

    def fresh(steps: int) -> tuple[NanoGPT, Callable[[int], Any]]:
        torch.manual_seed(int(seed))
        model = NanoGPT(shape)
        step = nanogpt_step(model, "bf16", given["lr"], (0.9, given["beta2"]), warmup=given["warmup"], steps=steps)

        def one(number: int) -> None:
            starts = torch.randint(len(stream) - shape.positions - 1, (given["batch"],))
            rows = torch.stack([stream[s : s + shape.positions + 1] for s in starts.tolist()])
            step(number, rows[:, :-1].contiguous(), rows[:, 1:].contiguous())

        return model, one

    steps = _fit(fresh(10 * TRIAL)[1], float(seconds))
    model, step = fresh(steps)
    spent = _spend(step, steps)
    heldout = HeldOut(Path(tokens), shape.positions, words, end, HELDOUT)
    loss = count = 0.0
    with torch.no_grad():
        for batch in heldout.batches(64, 0, 1):
            each = model.losses(batch["tokens"], batch["labels"]) * batch["loss_mask"]
            loss, count = loss + float(each.sum()), count + float(batch["loss_mask"].sum())
    made = steps * given["batch"] * shape.positions
    return {"bits": heldout.bits_per_byte(loss / count), "steps": steps, "tokens": made, "cpu_s": spent}


def _fit(step: Callable[[int], Any], seconds: float) -> int:
    """Steps that fit."""
    times = []
    for number in range(TRIAL):
        start = time.process_time()
        step(number)
        times.append(time.process_time() - start)
    return max(20, round(seconds / statistics.median(times[2:])))


def _spend(step: Callable[[int], Any], steps: int) -> float:
    start = time.process_time()
    for number in range(steps):
        step(number)
    return time.process_time() - start


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    print(json.dumps(globals()[name](*arguments)))
