"""The final judge of a tokenizer: what a model learns with it. Small models, equal compute, bits a byte of held-out
text.

A corpus's bytes do not depend on the tokenizer, its tokens do: so the models get the same FLOPs (a larger vocabulary
pays for its output layer with fewer tokens) and are compared by bits a byte. They are planned and trained by
headwater-model through its command line, where it is installed; this package does not import it.

    corpus, tokenizer -> encode -> plan -> pretrain -> heldout_bits_per_byte

A finished model is kept in the work folder until the comparison is published, so a killed comparison goes on with the
next one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from headwater_tokenizer._contracts import manifest
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.compare.config import JudgeConfig

COMMAND = "headwater-model"


def model_command() -> Path | None:
    """The console script of headwater-model beside this Python or on the path; None where it is not installed."""
    found = shutil.which(COMMAND, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return Path(found) if found else None


def judge(run: Run, name: str, tokenizer: Path, config: JudgeConfig) -> dict | None:
    """Train a model of each seed with one tokenizer.

    Returns:
        `bits_per_byte` (mean over the seeds), `low` and `high` (the least and the greatest of several, else None),
        `parameters`, `tokens`, `flops` and `bytes` (of held-out text); None where headwater-model is not installed.

    Raises:
        UserError: a stage refused, with its own line.
    """
    command = model_command()
    if command is None:
        return None
    folder = (run.work / "judge" / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    corpus = run.inputs["corpus"].resolve()
    tokens, plan = folder / "tokens", folder / "plan"
    own = [sys.executable, "-m", "headwater_tokenizer.cli"]
    _make([*own, "encode"], {"corpus": corpus, "tokenizer": tokenizer.resolve()}, tokens, {})
    _make([command, "plan"], {"tokens": tokens}, plan, config.plan | {"budget": {"flops": config.flops}})
    found = []
    for seed in config.seeds:
        checkpoint = folder / f"checkpoint-{seed}"
        inputs = {"tokens": tokens, "plan": plan, "tokenizer": tokenizer.resolve()}
        # All of the held-out text, at the end; nobody watches.
        whole: dict = {
            "heldout_tokens": None, "validate_every": 10**9, "checkpoint_every": 10**9, "tracking": {"to": []},
        }  # fmt: skip
        _make([command, "pretrain"], inputs, checkpoint, whole | config.pretrain | {"seed": seed})
        found.append(json.loads((checkpoint / "metrics.json").read_text()))
        run.log(f"judge: {name}, seed {seed}: {found[-1]['heldout_bits_per_byte']:.3f} bits a byte after "
                f"{found[-1]['tokens']:,} tokens of {found[-1]['parameters']:,} parameters")  # fmt: skip
    bits = [model["heldout_bits_per_byte"] for model in found]
    several = len(bits) > 1
    return {
        "bits_per_byte": fmean(bits),
        "low": min(bits) if several else None,
        "high": max(bits) if several else None,
        "parameters": found[0]["parameters"],
        "tokens": found[0]["tokens"],
        "flops": found[0]["flops"],
        "bytes": found[0]["heldout_bytes"],
    }


def _make(command: list, inputs: dict[str, Path], out: Path, settings: dict) -> None:
    """Run a stage unless its artefact is there."""
    if (out / manifest.NAME).is_file():
        return
    given = [a for name, path in inputs.items() for a in ("--in", f"{name}={path}")]
    values = [a for name, value in settings.items() for a in ("--set", f"{name}={json.dumps(value)}")]
    # A stage that finds DVC_STAGE ends with the process that started it, even where that is killed by -9.
    environment = {**os.environ, "DVC_STAGE": "compare"}
    done = subprocess.run(
        [*command, *given, *values, "--out", out, "--work", out.parent / "work"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise UserError(f"judge: {' '.join(map(str, command[-1:]))}: {said[-1]}")
