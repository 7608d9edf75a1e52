"""Killed for real: -9 on the stage, -9 on DVC, two `dvc repro` at once. Nothing is lost or half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from headwater_data._contracts import manifest as artefacts
from tests.conftest import dvc, environment


def change_seed(tree: Path) -> None:
    """Make pretrain, and only pretrain, out of date."""
    preset = tree / "configs/smoke.yaml"
    values = yaml.safe_load(preset.read_text())
    values["pretrain"]["seed"] = 4321
    preset.write_text(yaml.safe_dump(values, sort_keys=False))


def start(tree: Path) -> subprocess.Popen:
    return subprocess.Popen(
        ["dvc", "repro", "pretrain"],
        cwd=tree,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(what: str, true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(f"after {seconds} s still not: {what}")
        time.sleep(0.05)


def trainers(dvc_process: subprocess.Popen) -> list[psutil.Process]:
    """The processes that train: DVC's descendants that run headwater-model, launcher and ranks."""
    children = psutil.Process(dvc_process.pid).children(recursive=True)
    return [
        c
        for c in children
        if c.is_running() and "headwater" in " ".join(c.cmdline()) and c.name() not in ("sh", "bash")
    ]


def checkpoints(tree: Path) -> set[Path]:
    """Complete checkpoints (they are renamed into place) of every run of pretrain in this tree."""
    return set((tree / "work/pretrain").glob("*/checkpoints/step-*"))


@pytest.fixture(scope="module")
def uninterrupted(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hash of the manifest that the changed pretrain gives when nobody kills it."""
    tree = Path(shutil.copytree(smoke, tmp_path_factory.mktemp("whole") / "headwater", symlinks=True))
    change_seed(tree)
    dvc(tree, "repro", "pretrain")
    return artefacts.manifest_hash(tree / "artefacts/checkpoint")


def test_dvc_killed_takes_its_trainer_along_and_the_next_repro_resumes_to_the_same_bytes(
    smoke_copy: Path, uninterrupted: str
) -> None:
    change_seed(smoke_copy)
    before = checkpoints(smoke_copy)
    running = start(smoke_copy)
    wait_for("a first checkpoint", lambda: checkpoints(smoke_copy) - before)
    children = trainers(running)
    assert children
    running.kill()
    running.wait()
    wait_for(
        "every trainer gone",
        lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children),
        40,
    )
    assert not (smoke_copy / "artefacts/checkpoint").exists(), (
        "DVC removed it before the run; nothing half-written replaced it"
    )
    dvc(smoke_copy, "repro", "pretrain")
    assert artefacts.manifest_hash(smoke_copy / "artefacts/checkpoint") == uninterrupted


def test_a_stage_killed_fails_the_repro_and_the_next_one_resumes_to_the_same_bytes(
    smoke_copy: Path, uninterrupted: str
) -> None:
    change_seed(smoke_copy)
    before = checkpoints(smoke_copy)
    running = start(smoke_copy)
    wait_for("a first checkpoint", lambda: checkpoints(smoke_copy) - before)
    for child in trainers(running):
        os.kill(child.pid, signal.SIGKILL)
    assert running.wait() != 0
    out = dvc(smoke_copy, "repro", "pretrain").stdout
    assert "going on from step" in out
    assert artefacts.manifest_hash(smoke_copy / "artefacts/checkpoint") == uninterrupted


def test_two_repros_at_once_leave_one_right_result(smoke_copy: Path, uninterrupted: str) -> None:
    change_seed(smoke_copy)
    both = [start(smoke_copy), start(smoke_copy)]
    printed = [process.communicate()[0] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, printed
    loser = printed[1 - codes.index(0)]
    assert codes == [0, 0] or "busy" in loser or "in use" in loser or "lock" in loser, loser
    assert artefacts.verify(smoke_copy / "artefacts/checkpoint")
    assert artefacts.manifest_hash(smoke_copy / "artefacts/checkpoint") == uninterrupted
    assert "up to date" in dvc(smoke_copy, "repro", "pretrain").stdout


def test_a_second_writer_is_refused_by_name(smoke_copy: Path) -> None:
    """Without DVC between: the same stage twice on one work folder."""
    command = ["headwater-model", "pretrain", "--params", "params.yaml", "--set", "seed=777", "--out", "second"]
    command += [a for name in ("tokens", "plan", "tokenizer") for a in ("--in", f"{name}=artefacts/{name}")]
    first = subprocess.Popen(command, cwd=smoke_copy, env=environment(), stdout=subprocess.DEVNULL)
    wait_for(
        "the first holds its lock",
        lambda: any(p.read_text() == str(first.pid) for p in (smoke_copy / "work/pretrain").glob("*/lock")),
    )
    second = subprocess.run(command, cwd=smoke_copy, env=environment(), capture_output=True, text=True)
    first.kill()
    first.wait()
    assert second.returncode == 1
    assert f"in use by process {first.pid}" in second.stderr and len(second.stderr.strip().splitlines()) == 1
