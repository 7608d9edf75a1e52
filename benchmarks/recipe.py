"""Held-out bits a byte after equal CPU seconds on the same tokens: the scale tiny's recipe beside nanoGPT's settings.

Input: the tokens and the tokenizer of a finished lineage (`make`, or a folder of artefacts in HEADWATER_ARTEFACTS).
Each contestant trains on one thread in a process of its own, for as many steps as fit, its learning rate falling to its
own end over just these steps; start-up, evaluation and the timing of the first steps do not count. Ours reads `plan`
and `pretrain` of configs/tiny.yaml. nanoGPT's settings are those of its README's CPU example (context 64, batch 12,
4 layers of 128), and our shape, context and batch with the learning rate of either that example or its GPT-2; bf16
autocast, as train.py has it.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import yaml

from benchmarks.data import artefacts
from benchmarks.frame import Row, lower_is_better
from benchmarks.peers import measure

CONFIG = Path(__file__).parents[1] / "configs" / "tiny.yaml"
SECONDS = 120
SEEDS = (1, 2)
SHAPE = {"layers": 4, "hidden": 192, "heads": 3, "context": 256, "batch": 16, "warmup": 100}
NANOGPT = {
    "GPT-2's learning rate, our shape": {**SHAPE, "lr": 6e-4, "beta2": 0.95},
    "the CPU example's learning rate, our shape": {**SHAPE, "lr": 1e-3, "beta2": 0.99},
    "the CPU example": {
        "layers": 4, "hidden": 128, "heads": 4, "context": 64, "batch": 12, "warmup": 100, "lr": 1e-3, "beta2": 0.99,
    },
}  # fmt: skip


def run(quick: bool) -> list[Row]:
    """A row for each of nanoGPT's settings."""
    scale = yaml.safe_load(CONFIG.read_text())
    seconds, seeds = (10, SEEDS[:1]) if quick else (SECONDS, SEEDS)
    ours = {"plan": scale["plan"], "pretrain": scale["pretrain"]}
    ours["pretrain"] = {k: v for k, v in ours["pretrain"].items() if k not in ("parallel", "threads")}
    ours["pretrain"]["micro_batch"] = ours["plan"]["batch"]  # one rank has it all
    found: dict[str, list[dict]] = {}
    for seed in seeds:  # all contestants under one seed, then under the next: a drift hits all
        for name, settings in {"ours": ours, **NANOGPT}.items():
            function = "headwater" if name == "ours" else "nanogpt"
            arguments = (artefacts() / "tokens", artefacts() / "tokenizer", str(seconds), str(seed))
            made = measure("own", "recipe_work", function, *arguments, json.dumps(settings))
            found.setdefault(name, []).append(made)
    rows = []
    for name in NANOGPT:
        bits = [statistics.mean(one["bits"] for one in found[which]) for which in ("ours", name)]
        each = ["/".join(f"{one['bits']:.3f}" for one in found[which]) for which in ("ours", name)]
        tokens = [statistics.mean(one["tokens"] for one in found[which]) / 1e6 for which in ("ours", name)]
        spent = [statistics.mean(one["cpu_s"] for one in found[which]) for which in ("ours", name)]
        how = f"mean of {len(seeds)} seeds ({each[0]} and {each[1]}); {tokens[0]:.2f}M and {tokens[1]:.2f}M tokens in "
        how += f"{spent[0]:.0f} and {spent[1]:.0f} CPU s, one thread"
        rows.append(lower_is_better(
            f"{seconds} CPU s: {name}", "bits a byte", bits[0], "nanogpt", "recipe, torch 2.13.0", bits[1], 1.0, how
        ))  # fmt: skip
    return rows
