"""Optimisers at equal tokens, and the best learning rate of a narrow model on wide ones.

A decoder of 2 layers reads the bytes of Python's own manual (pydoc_data, 466 kB), 8 rows of 64 a step, none twice;
linear warm-up over 5% of the steps, then linear decay to 10%. The figure is the mean loss of the last tenth of the
steps, in bits per byte, which no weight has seen before. Every kind is given its best rate of five; then widths get
rates by three rules: one for all, 1/width on all weights, and width transfer from the narrowest. Ratio: peer's loss
over ours.
"""

from __future__ import annotations

import math
import os
import pydoc_data.topics

os.environ.setdefault("OMP_NUM_THREADS", "1")

import headwater_model.cpu as cpu  # noqa: F401

import torch

from benchmarks.frame import Row, lower_is_better
from headwater_model import runtime, width_transfer
from headwater_model.config import ModelConfig, OptimizerConfig, ScheduleConfig
from headwater_model.gpt import build
from headwater_model.trainer import Trainer, next_token_loss

RATES = {
    "adamw": [0.003, 0.006, 0.012, 0.024, 0.048],
    "adafactor": [0.03, 0.06, 0.12, 0.24, 0.48],
    "lion": [0.0005, 0.001, 0.002, 0.004, 0.008],
    "muon": [0.003, 0.006, 0.012, 0.024, 0.048],
    "sgd": [0.05, 0.1, 0.2, 0.4, 0.8],
}
BASE, WIDTHS = 64, (128, 256)
GRID = [0.0015 * 2**n for n in range(7)]
Losses = dict[float, float]


def run(quick: bool) -> list[Row]:
    """A row a kind, beside AdamW; a row a width and rule, beside the width's own best rate."""
    torch.set_num_threads(1)
    runtime.initialize(seed=1)
    steps = 10 if quick else 300
    kinds = {
        kind: {lr: loss(BASE, OptimizerConfig(kind=kind, lr=lr), steps) for lr in rates}
        for kind, rates in RATES.items()
    }
    best = min(kinds["adamw"].values())
    rows = [
        lower_is_better(f"{kind}, width {BASE}", "bits/byte", min(tried.values()), "adamw", "", best, None, told(tried))
        for kind, tried in kinds.items()
    ]
    steps = 10 if quick else 150
    narrow = {lr: loss(BASE, OptimizerConfig(lr=lr), steps) for lr in GRID}
    chosen = min(narrow, key=narrow.__getitem__)
    for width in WIDTHS[:1] if quick else WIDTHS:
        plain = {lr: loss(width, OptimizerConfig(lr=lr), steps) for lr in GRID}
        rules = {
            "one rate": plain,
            "1/width": {lr: loss(width, OptimizerConfig(lr=lr * BASE / width), steps) for lr in GRID},
            "width transfer": {lr: loss(width, transferred(lr), steps) for lr in GRID},
        }
        for rule, tried in rules.items():
            rows.append(
                lower_is_better(
                    f"width {width}, rate of width {BASE}, {rule}",
                    "bits/byte",
                    tried[chosen],
                    "best one rate",
                    "",
                    min(plain.values()),
                    1.0 if rule == "width transfer" else None,
                    f"rate {chosen:g} of width {BASE} ({told(narrow)}); this width by the same rates: {told(tried)}",
                )
            )
    return rows


def transferred(lr: float) -> OptimizerConfig:
    """AdamW with the rate of the narrowest model."""
    return OptimizerConfig(lr=lr, width_transfer={"base": BASE})


def loss(width: int, optimizer: OptimizerConfig, steps: int) -> float:
    """Train a fresh model; mean of the last tenth of its losses in bits per byte, infinite where it diverged."""
    shape = ModelConfig(layers=2, hidden=width, heads=width // 32, ffn=3 * width, vocab=256, context=64)
    model = build(shape, seed=3)
    if optimizer.width_transfer:
        width_transfer.initialise(model, shape, optimizer.width_transfer.base)
    schedule = ScheduleConfig(kind="linear", warmup=max(1, steps // 20), steps=steps, floor=0.1)
    trainer = Trainer(model, optimizer, schedule)
    losses = [
        trainer.step([{"tokens": rows[:, :-1], "labels": rows[:, 1:]}], next_token_loss)["loss"] for rows in text(steps)
    ]
    last = losses[-max(1, steps // 10) :]
    found = sum(last) / len(last) / math.log(2)
    return found if math.isfinite(found) else math.inf


def text(steps: int) -> torch.Tensor:
    """int64 [steps, 8, 65]: the manual's bytes in order."""
    data = "".join(topic for _, topic in sorted(pydoc_data.topics.topics.items())).encode()
    return torch.frombuffer(bytearray(data[: steps * 8 * 65]), dtype=torch.uint8).long().view(steps, 8, 65)


def told(tried: Losses) -> str:
    """Every rate with its loss."""
    return ", ".join(f"{lr:g}: {bits:.3f}" for lr, bits in tried.items())
