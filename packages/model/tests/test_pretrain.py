"""Pre-training as a user runs it: killed, it goes on to the same bytes; it learns; bad layouts are one line."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater_model._contracts import manifest as artefacts

STEPS, EVERY = 40, 8
PLAN = ["budget.flops=1e13", "context=32", "batch=8", "lr=0.01", "vocab_multiple=64"]
SHAPE = ["model.layers=2", "model.hidden=32", "model.heads=2"]


def command(stage: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "headwater_model.cli", stage, *map(str, arguments)]


def sets(*items: str) -> list[str]:
    return [part for item in items for part in ("--set", item)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def plan_folder(tokens_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    arguments = ["--in", tokens_folder, "--out", folder / "plan", "--work", folder / "work", *sets(*PLAN, *SHAPE)]
    subprocess.run(command("plan", *arguments), check=True, env=environment(), capture_output=True)
    return folder / "plan"


@pytest.fixture(scope="module")
def inputs(plan_folder: Path, tokens_folder: Path, tokenizer_folder: Path) -> list[object]:
    named = {"plan": plan_folder, "tokens": tokens_folder, "tokenizer": tokenizer_folder}
    return [part for name, folder in named.items() for part in ("--in", f"{name}={folder}")]


def pretrain(inputs: list[object], folder: Path, *items: str) -> list[str]:
    settings = [f"steps={STEPS}", f"checkpoint_every={EVERY}", f"validate_every={STEPS}", "log_every=4", "threads=1"]
    where = ["--out", folder / "checkpoint", "--work", folder / "work"]
    return command("pretrain", *inputs, *where, *sets(*settings, *items))


def run(inputs: list[object], folder: Path, *items: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(pretrain(inputs, folder, *items), env=environment(), capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(inputs: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(inputs, folder)
    assert done.returncode == 0, done.stderr
    return folder / "checkpoint"


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("work/pretrain/*/checkpoints/step-*"))


def until_first_checkpoint(inputs: list[object], folder: Path, *items: str) -> subprocess.Popen[str]:
    running = subprocess.Popen(
        pretrain(inputs, folder, *items), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 120
    while not checkpoints(folder):
        assert running.poll() is None and time.monotonic() < end, running.communicate()[0]
        time.sleep(0.01)
    return running


def test_the_loss_falls_and_the_untrained_model_knows_nothing(whole: Path, tokens_folder: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    tokens = json.loads((tokens_folder / "metrics.json").read_text())["heldout"]
    blank = math.log2(512) * tokens["tokens"] / tokens["bytes"]
    assert metrics["untrained_bits_per_byte"] == pytest.approx(blank, rel=0.02)
    assert metrics["heldout_bits_per_byte"] < 0.9 * blank


def test_killed_it_goes_on_to_the_same_bytes(inputs, whole: Path, tmp_path: Path) -> None:
    running = until_first_checkpoint(inputs, tmp_path)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (tmp_path / "checkpoint").exists()
    done = run(inputs, tmp_path)
    assert done.returncode == 0 and "going on from step" in done.stdout, done.stdout + done.stderr
    assert artefacts.manifest_hash(tmp_path / "checkpoint") == artefacts.manifest_hash(whole)


def test_sigterm_saves_the_last_step_and_the_next_run_goes_on_from_it(inputs, whole: Path, tmp_path: Path) -> None:
    running = until_first_checkpoint(inputs, tmp_path)
    running.send_signal(signal.SIGTERM)
    printed = running.communicate()[0]
    assert running.returncode == 143, printed
    saved = int(checkpoints(tmp_path)[-1].name.split("-")[1])
    done = run(inputs, tmp_path)
    assert f"going on from step {saved}" in done.stdout, done.stdout + done.stderr
    assert artefacts.manifest_hash(tmp_path / "checkpoint") == artefacts.manifest_hash(whole)


def alive(process: str) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphaned ranks on Linux only")
def test_two_ranks_end_with_their_parent_and_the_next_run_goes_on_to_the_same_bytes(inputs, tmp_path: Path) -> None:
    layout = ["parallel.data=2", "micro_batch=4"]
    running = until_first_checkpoint(inputs, tmp_path / "killed", *layout)
    ranks = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    assert len(ranks) == 2
    running.kill()
    running.communicate()
    end = time.monotonic() + 60
    while any(alive(rank) for rank in ranks):  # they may save the step they are at
        assert time.monotonic() < end
        time.sleep(0.05)
    done = run(inputs, tmp_path / "killed", *layout)
    assert done.returncode == 0 and "going on from step" in done.stdout, done.stdout + done.stderr
    assert run(inputs, tmp_path / "whole", *layout).returncode == 0
    hashes = {artefacts.manifest_hash(tmp_path / name / "checkpoint") for name in ("killed", "whole")}
    assert len(hashes) == 1


def test_a_layout_that_does_not_divide_the_model_is_one_line(inputs, tmp_path: Path) -> None:
    done = run(inputs, tmp_path, "parallel.pipeline=3")
    assert done.returncode == 1 and "layers 2 is no multiple of parallel.pipeline 3" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "checkpoint").exists()
