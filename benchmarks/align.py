"""headwater-align beside TRL: SFT, a reward model and PPO on the same weights, rows and comparisons.

A model of 10.06M parameters (6 layers of 320, 8,192 ids, tied, fresh weights) in a folder that ours wrote, both read;
data in ids, so that no tokenizing is timed. Contestants take turns in processes of their own, one thread each; a figure
is work a second of CPU time: real tokens of 64 rows (8 an update), comparisons of 8 prompts with 4 ranked completions
(12 an update; TRL has them as pairs), episodes of 16 prompts (48 + 32 tokens, 4 updates a batch). Both use AdamW and
clip gradients at 1. Before anything is timed both tell the loss of the same rows, comparisons and episodes: in fp32
they must agree within 1e-4, or there is no table.

TRL's defaults are bf16 autocast with gradient checkpointing. "best" are the settings that we found to be the fastest of
its own on a CPU: bf16, no checkpointing, freed pages kept as ours are, and for SFT rows of like length together or
packed. PPO was last in TRL 1.12.0.
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.frame import Row, higher_is_better
from benchmarks.model import Contestant, take_turns

SCRIPT = Path(__file__).with_name("align_work.py")
TOLERANCE = 1e-4
"""How far two losses in fp32 may be apart, as a share."""


@dataclass(frozen=True)
class Stage:
    """A stage of training and how TRL is asked to do it."""

    name: str
    unit: str
    work: int
    """Units a step."""
    environment: str
    version: str
    best: tuple[str, ...]
    """Settings beyond "plain" (no checkpointing) that may be the peer's fastest."""
    targets: dict[str, float]
    """Of the issue, against TRL's defaults (bf16) and in fp32."""


def run(quick: bool) -> list[Row]:
    """Rows of each stage: against TRL's defaults, in fp32, and against its best settings."""
    with tempfile.TemporaryDirectory() as folder:
        _own("write_inputs", folder)
        tokens = int(_own("count_tokens", folder))
        sft, pairs = {"defaults": 3.0, "fp32": 2.5}, {"defaults": 5.0, "fp32": 5.0}
        stages = [
            Stage("sft", "tokens", tokens, "trl", "SFTTrainer 1.16.0", ("grouped", "packed"), sft),
            Stage("reward", "comparisons", 48, "trl", "RewardTrainer 1.16.0", (), pairs),
            Stage("ppo", "episodes", 16, "trl-ppo", "PPOTrainer 1.12.0", (), {"defaults": 3.0, "fp32": 3.0}),
        ]
        return [row for stage in stages for row in _rows(stage, folder, quick)]


def _rows(stage: Stage, folder: str, quick: bool) -> list[Row]:
    agreed = _agreement(stage, folder)

    def ours(precision: str) -> Contestant:
        return Contestant(f"{stage.name}_headwater", precision, 1, folder, script=SCRIPT)

    def theirs(precision: str, settings: str, pages: bool = False) -> Contestant:
        arguments = f"{folder} {settings}"
        return Contestant(
            f"{stage.name}_trl", precision, 1, arguments, pages, script=SCRIPT, environment=stage.environment
        )

    fp32, bf16 = ours("fp32"), ours("bf16")
    defaults, plain = theirs("bf16", "defaults"), theirs("fp32", "plain")
    best = [theirs("bf16", settings, pages=True) for settings in ("plain", *stage.best)]
    contestants = [fp32, plain] if quick else [fp32, bf16, plain, defaults, *best]
    take_turns(contestants, turns=1 if quick else 3, steps=1)
    how = f"median of {len(fp32.turns)} turns, one thread; {agreed}"

    def row(what: str, mine: Contestant, peer: Contestant, target: float | None) -> Row:
        settings = f"{peer.variant.split()[1]}, {peer.precision}{', kept pages' if peer.pages else ''}"
        return higher_is_better(
            f"{stage.name}, {what}", f"{stage.unit}/CPU s", stage.work / mine.cpu(), "TRL", stage.version,
            stage.work / peer.cpu(), target, f"{how}; TRL: {settings}",
        )  # fmt: skip

    rows = [row("fp32, no checkpointing", fp32, plain, stage.targets["fp32"])]
    if quick:
        return rows
    fastest = min(best, key=Contestant.cpu)
    return [
        row("bf16, TRL's defaults", bf16, defaults, stage.targets["defaults"]),
        *rows,
        row("bf16, TRL's best", bf16, fastest, None),
    ]


def _agreement(stage: Stage, folder: str) -> str:
    """How far the losses before the first update are apart in fp32, in words.

    Raises:
        AssertionError: too far.
    """
    check = "_check" if stage.name == "ppo" else ""
    ours = Contestant(f"{stage.name}{check}_headwater", "fp32", 1, folder, script=SCRIPT)
    arguments = folder if check else f"{folder} plain"
    theirs = Contestant(f"{stage.name}{check}_trl", "fp32", 1, arguments, script=SCRIPT, environment=stage.environment)
    take_turns([ours, theirs], turns=0, steps=1)
    for mine, peer in zip(ours.made, theirs.made, strict=True):
        assert math.isclose(mine, peer, rel_tol=TOLERANCE, abs_tol=TOLERANCE), (
            f"{stage.name}: {ours.made} and {theirs.made} differ by more than {TOLERANCE}"
        )
    apart = max(abs(mine - peer) for mine, peer in zip(ours.made, theirs.made, strict=True))
    return f"losses at the start at most {apart:.0e} apart"


def _own(function: str, folder: str) -> str:
    """What a function of align_work.py prints in this environment."""
    command = [str(peers.python("own")), str(SCRIPT), function, "1", "fp32", folder]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
