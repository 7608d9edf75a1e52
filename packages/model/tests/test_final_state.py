"""One folder holds all that a run is made of, can be checked, tells no secrets, and training goes on from it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from headwater_model import final_state
from headwater_model._contracts.config import resolved
from headwater_model._contracts.errors import UserError
from headwater_model.config import ModelConfig, OptimizerConfig, ScheduleConfig
from headwater_model.gpt import build
from headwater_model.trainer import Trainer, next_token_loss

DATA = {"sequences": 12, "seed": 1, "tokens": "0" * 64}


def trainer(shape: ModelConfig) -> Trainer:
    return Trainer(build(shape, torch.bfloat16, seed=3), OptimizerConfig(lr=0.01), ScheduleConfig(steps=9))


def step(of: Trainer) -> float:
    ids = torch.randint(512, (4, 17), generator=torch.Generator().manual_seed(of.step_count))
    batch = {"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}
    return of.step([batch], next_token_loss)["loss"]


@pytest.fixture(scope="module")
def trained(shape: ModelConfig) -> Trainer:
    one = trainer(shape)
    for _ in range(3):
        step(one)
    return one


@pytest.fixture
def folder(trained: Trainer, shape: ModelConfig, tmp_path: Path) -> Path:
    final_state.write(tmp_path / "final", trained.save, {"model": resolved(shape)}, DATA)
    return tmp_path / "final"


def test_training_goes_on_from_it_exactly_and_it_says_where_the_data_stood(shape, folder):
    found = final_state.verify(folder)
    assert found["data"] == DATA and found["config"]["model"] == resolved(shape)
    generator = torch.get_rng_state()
    again = [trainer(shape), trainer(shape)]
    for one in again:
        one.load(folder / final_state.STATE)
        assert torch.equal(torch.get_rng_state(), generator) and one.step_count == 3
    assert [step(again[0]) for _ in range(3)] == [step(again[1]) for _ in range(3)]


def test_made_twice_it_has_the_same_bytes(trained, shape, folder, tmp_path):
    final_state.write(tmp_path / "again", trained.save, {"model": resolved(shape)}, DATA)
    hashes = [(tmp_path / name / "sha256.json").read_text() for name in ("final", "again")]
    assert hashes[0] == hashes[1] and len(json.loads(hashes[0])) == 7


@pytest.mark.parametrize(
    "harm, told",
    [
        (lambda f: (f / "state/common.pt").write_bytes(b""), "state/common.pt has changed"),
        (lambda f: (f / "environment.json").unlink(), "environment.json is missing"),
        (lambda f: (f / "more.txt").write_text(""), "more.txt has no hash"),
        (lambda f: (f / "sha256.json").unlink(), "no readable sha256.json"),
    ],
)
def test_a_change_is_refused_by_the_files_name(harm, told, folder):
    harm(folder)
    with pytest.raises(UserError, match=told) as error:
        final_state.verify(folder)
    assert len(str(error.value).splitlines()) == 1


def test_the_environment_holds_versions_and_neither_secrets_nor_names(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "do-not-tell")
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    found = final_state.environment()
    text = json.dumps({k: v for k, v in found.items() if k != "torch"})  # whose build names its own compiler's path
    assert found["packages"]["torch"] == torch.__version__ and found["variables"]["NCCL_ALGO"] == "Ring"
    assert "do-not-tell" not in text and str(Path.home()) not in text and os.getcwd() not in text
    assert socket.gethostname() not in json.dumps({k: v for k, v in found.items() if k not in ("packages", "torch")})
    assert found == final_state.environment()


def test_the_revision_is_the_last_that_changed_the_code_and_says_whether_it_is_clean(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert final_state.revision(tmp_path) is None
    git("init", "-q")
    for name in ("code", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
        git("add", "-A")
        git("commit", "-qm", name)
    code = tmp_path / "code"
    assert final_state.revision(code) == {"revision": git("rev-parse", "HEAD~1"), "dirty": False}
    (code / "file").write_text("2")
    assert final_state.revision(code) == {"revision": git("rev-parse", "HEAD~1"), "dirty": True}
