"""Checkpoints are of the moment they were asked for, whole or not there, kept by policy, and never believed unseen."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater_model import checkpoint, launch
from headwater_model._contracts.config import resolved
from headwater_model._contracts.errors import UserError
from headwater_model.config import CheckpointConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from headwater_model.gpt import build
from headwater_model.saver import Saver, kept
from headwater_model.snapshot import Snapshot
from headwater_model.trainer import Trainer, next_token_loss

TESTS = Path(__file__).parent


def trainer(shape: ModelConfig) -> Trainer:
    return Trainer(build(shape, torch.bfloat16, seed=3), OptimizerConfig(lr=0.01), ScheduleConfig(steps=100))


def step(of: Trainer) -> None:
    ids = torch.randint(512, (4, 17), generator=torch.Generator().manual_seed(of.step_count))
    of.step([{"tokens": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}], next_token_loss)


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in of.module.named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(shape: ModelConfig) -> Trainer:
    one = trainer(shape)
    step(one)
    return one


@pytest.fixture
def events() -> list[dict]:
    return []


@pytest.fixture
def saving(shape: ModelConfig, tmp_path: Path, events: list[dict]) -> Saver:
    return Saver(tmp_path, CheckpointConfig(last=2), events.append, resolved(shape))


@given(
    st.dictionaries(st.integers(1, 60), st.none() | st.floats(allow_infinity=False), min_size=1),
    st.integers(1, 4), st.none() | st.integers(1, 20), st.integers(0, 3),
)  # fmt: skip
def test_the_newest_the_best_and_every_kth_stay_and_nothing_else(losses, last, every, best):
    config = CheckpointConfig(last=last, every=every, best=best)
    stay = kept(losses, config)
    newest = set(sorted(losses)[-last:])
    measured = {s: loss for s, loss in losses.items() if loss is not None and loss == loss}
    assert newest <= stay <= set(losses)
    for one in set(losses) - stay:
        assert not (every and one % every == 0)
        assert one not in measured or sum(other <= measured[one] for other in measured.values()) > best
    for one in stay - newest:
        assert (every and one % every == 0) or sum(v < measured[one] for v in measured.values()) < best
    assert kept({s: losses[s] for s in stay}, config) == stay, "what stays, stays"


def test_it_holds_the_moment_it_was_asked_for_though_training_goes_on(shape, trained, saving, tmp_path, monkeypatch):
    may_write, write = threading.Event(), Snapshot.write
    monkeypatch.setattr(Snapshot, "write", lambda self: may_write.wait(60) and write(self))
    then, count = weights(trained), trained.step_count
    saving.save(count, trained.state)
    step(trained)
    saving.poll()
    assert not checkpoint.steps(tmp_path) and not equal(then, weights(trained))
    may_write.set()
    saving.wait()
    resumed = trainer(shape)
    resumed.load(checkpoint.newest_good(tmp_path, pytest.fail))
    assert resumed.step_count == count and equal(then, weights(resumed))
    step(resumed)
    assert equal(weights(trained), weights(resumed)), "the optimiser's state too"


def test_beside_training_or_at_once_the_bytes_are_the_same(trained, shape, tmp_path):
    for name, asynchronous in (("beside", True), ("at once", False)):
        one = Saver(tmp_path / name, CheckpointConfig(asynchronous=asynchronous), lambda event: None, resolved(shape))
        one.save(5, trained.state, heldout_loss=2.0, files={"loop.json": "{}"})
        one.wait()
    one, other = (tmp_path / name / "step-00000005" / checkpoint.HASHES for name in ("beside", "at once"))
    assert one.read_text() == other.read_text() and "loop.json" in json.loads(one.read_text())


@contextmanager
def full_disk() -> Iterator[None]:
    """Files of this process may grow to 100 kB: what lies beyond is refused by the kernel, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_a_checkpoint_and_the_third_in_a_row_the_run(trained, saving, events, tmp_path):
    saving.save(1, trained.state)
    saving.wait()
    with full_disk():
        saving.save(2, trained.state)
        saving.wait()
        saving.save(3, trained.state)
        saving.wait()
    assert [event["what"] for event in events] == ["checkpoint", "checkpoint failed", "checkpoint failed"]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.newest_good(tmp_path, pytest.fail).name == "step-00000001"
    saving.save(4, trained.state)  # there is room again
    saving.wait()
    assert saving.steps() == [1, 4]
    with full_disk(), pytest.raises(UserError, match="3 checkpoints in a row failed") as told:
        for number in (5, 6, 7):
            saving.save(number, trained.state)
            saving.wait()
    assert len(str(told.value).splitlines()) == 1 and saving.steps() == [1, 4]


def flip_a_bit(folder: Path) -> None:
    path = folder / "__0_0.distcp"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(folder: Path) -> None:
    path = folder / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-1])


HARM = {
    "has changed": [flip_a_bit, truncate],
    "is missing": [lambda folder: (folder / ".metadata").unlink()],
    "no readable sha256.json": [
        lambda folder: (folder / checkpoint.HASHES).unlink(),
        lambda folder: (folder / checkpoint.HASHES).write_text('{"common.pt": '),
    ],
    "has no hash": [lambda folder: (folder / checkpoint.HASHES).write_text("{}")],
}


@pytest.fixture(scope="module")
def two(trained: Trainer, shape: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    one = Saver(root, CheckpointConfig(), lambda event: None, resolved(shape))
    for number in (1, 2):
        one.save(number, trained.state)
    one.wait()
    return root


@pytest.mark.parametrize("fault, harm", [(fault, harm) for fault, harms in HARM.items() for harm in harms])
def test_a_damaged_newest_is_named_and_the_one_before_taken(fault, harm, two, tmp_path):
    root, said = tmp_path / "root", []
    shutil.copytree(two, root)
    harm(root / "step-00000002")
    assert checkpoint.newest_good(root, said.append) == root / "step-00000001"
    assert len(said) == 1 and "step-00000002 is damaged" in said[0] and fault in said[0]
    assert (root / "damaged-step-00000002").is_dir(), "for whoever wants to know why"
    assert checkpoint.newest_good(root, pytest.fail) == root / "step-00000001"


def test_another_models_checkpoint_is_refused_by_the_field_that_differs(two, shape):
    folder = two / "step-00000002"
    checkpoint.refuse_other(folder, resolved(shape))
    with pytest.raises(UserError, match=r"of another model: heads is 4 there and 2 here; use its config") as told:
        checkpoint.refuse_other(folder, resolved(ModelConfig(**{**resolved(shape), "heads": 2})))
    assert len(str(told.value).splitlines()) == 1


def test_what_a_killed_run_left_is_cleared_and_a_replaced_checkpoint_comes_back(two, shape, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(two, root)
    (root / "step-00000002").rename(root / ".step-00000002.old")  # between two renames
    (root / ".step-00000002.new").mkdir()
    again = Saver(root, CheckpointConfig(), lambda event: None, {})
    assert again.steps() == [1, 2] and checkpoint.newest_good(root, pytest.fail).name == "step-00000002"
    again.forget_after(1)
    assert sorted(path.name for path in root.iterdir()) == ["step-00000001"]


def test_a_checkpoint_saved_again_replaces_the_first(trained, saving, tmp_path):
    for text in ("first", "second"):
        saving.save(1, trained.state, files={"loop.json": text})
    saving.wait()
    assert (tmp_path / "step-00000001/loop.json").read_text() == "second"
    assert checkpoint.damage(tmp_path / "step-00000001") is None


def test_the_best_by_held_out_loss_stays(trained, shape, tmp_path):
    config = CheckpointConfig(last=1, best=1)
    one = Saver(tmp_path, config, lambda event: None, resolved(shape))
    for number, loss in enumerate((3.0, 1.0, 2.0, None), start=1):
        one.save(number, trained.state, heldout_loss=loss)
    assert one.steps() == [2, 4]


def test_two_ranks_share_the_writing_and_one_full_disk_is_everybodys(tmp_path, monkeypatch):
    """What it asserts is said in checkpoint_job.py."""
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    launch.run("checkpoint_job", [str(tmp_path / "checkpoints")], 2, tmp_path / "ranks")
