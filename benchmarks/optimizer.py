"""Optimisers at equal tokens, and the best learning rate of a narrow model on wide ones.

A decoder of 2 layers reads the bytes of Python's own manual (pydoc_data, 466 kB), 8 rows of 64 a step, none twice;
linear warm-up over 5% of the steps, then linear decay to 10%. The figure is the mean loss of the last tenth of the
steps, in bits per byte, which no weight has seen before. Every kind is given its best rate of five; then widths get
the best rate of the narrowest by three rules: one for all, 1/width on all weights, and width transfer, all with an
output matrix of std 1/sqrt(fan in) at the narrowest. Ratio: peer's loss over ours.
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
from headwater_model.training_config import WidthTransferConfig

RATES = {
    "adamw": [0.00075, 0.0015, 0.003, 0.006, 0.012],
    "adafactor": [0.03, 0.06, 0.12, 0.24, 0.48],
    "lion": [0.0005, 0.001, 0.002, 0.004, 0.008],
    "muon": [0.003, 0.006, 0.012, 0.024, 0.048],
    "sgd": [0.05, 0.1, 0.2, 0.4, 0.8],
}
BASE, WIDTHS = 64, (128, 256)
GRID = [0.00075 * 2**n for n in range(6)]
OUTPUT = 6.25
"""1/sqrt(64) over the 0.02 with which output matrices are drawn."""
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
    return rows + by_width(10 if quick else 150, WIDTHS[:1] if quick else WIDTHS)


def by_width(steps: int, widths: tuple[int, ...]) -> list[Row]:
    """A row a width and rule: the narrowest model's best rate here, beside the best of this width's own."""
    narrow = {lr: loss(BASE, OptimizerConfig(lr=lr), steps, OUTPUT) for lr in GRID}
    chosen = min(narrow, key=narrow.__getitem__)
    rows = []
    for width in widths:
        plain = {lr: loss(width, OptimizerConfig(lr=lr), steps, OUTPUT * (BASE / width) ** 0.5) for lr in GRID}
        transfer = {lr: loss(width, transferred(lr), steps) for lr in GRID}
        by_rule = {"one rate": plain[chosen], "1/width": plain[chosen * BASE / width], "transfer": transfer[chosen]}
        how = f"rates of {BASE}: {told(narrow)}; of {width}: {told(plain)}; with transfer: {told(transfer)}"
        for rule, found in by_rule.items():
            work = f"width {width}, rate {chosen:g} of width {BASE}, {rule}"
            target = 1.0 if rule == "transfer" else None
            rows.append(lower_is_better(work, "bits/byte", found, "own best", "", min(plain.values()), target, how))
    return rows


def transferred(lr: float) -> OptimizerConfig:
    """AdamW with the rate of the narrowest model."""
    return OptimizerConfig(lr=lr, width_transfer=WidthTransferConfig(base=BASE, output=OUTPUT))


def loss(width: int, optimizer: OptimizerConfig, steps: int, output: float = 1.0) -> float:
    """Train a fresh model; mean of the last tenth of its losses in bits per byte, infinite where it diverged.

    Args:
        output: what the output matrix is multiplied with, where width transfer does not say it.
    """
    shape = ModelConfig(layers=2, hidden=width, heads=width // 32, ffn=3 * width, vocab=256, context=64)
    model = build(shape, seed=3)
    if optimizer.width_transfer:
        width_transfer.initialise(model, shape, optimizer.width_transfer)
    else:
        with torch.no_grad():
            model.output_layer.weight.mul_(output)
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
