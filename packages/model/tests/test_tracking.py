"""Trackers: real ones, without a network; a resumed run is one curve."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from headwater_model import tracking
from headwater_model._contracts.errors import UserError
from headwater_model.training_config import TrackingConfig

PARAMS = {"optimizer": {"lr": 0.1, "kind": "adamw"}, "steps": 4}
PAST = [(1, {"train/loss": 3.0}), (2, {"train/loss": 2.5})]


def opened(folder: Path, to: str, past: list) -> tracking.Tracker:
    config = TrackingConfig(to=[to], folder=str(folder))
    (tracker,) = tracking.open_all(config, "run-1", PARAMS, past, print)
    return tracker


def crash_and_resume(folder: Path, to: str) -> None:
    """Steps 1 to 3, a crash, and on from a checkpoint of step 2."""
    first = opened(folder, to, [])
    for step, row in [*PAST, (3, {"train/loss": 99.0})]:
        first.add(step, row)
    first.close()
    again = opened(folder, to, PAST)
    again.add(3, {"train/loss": 2.25})
    again.add(4, {"train/loss": 2.0, "heldout/bits_per_byte": 1.5})
    again.text(4, "samples", "The <b> cat")
    again.close()


def test_dvclive_shows_a_resumed_run_as_one_curve(tmp_path: Path) -> None:
    pytest.importorskip("dvclive")
    crash_and_resume(tmp_path, "dvclive")
    folder = tmp_path / "dvclive"
    with open(folder / "plots/metrics/train/loss.tsv") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file, delimiter="\t")]
    assert rows == [(1, 3.0), (2, 2.5), (3, 2.25), (4, 2.0)]
    newest = json.loads((folder / "metrics.json").read_text())
    assert newest["train"]["loss"] == 2.0 and newest["heldout"]["bits_per_byte"] == 1.5 and newest["step"] == 4
    assert "optimizer.lr: 0.1" in (folder / "params.yaml").read_text()
    assert "The <b> cat" in (folder / "samples.md").read_text()
    assert not (folder / "dvc.yaml").exists()


def test_tensorboard_shows_a_resumed_run_as_one_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    crash_and_resume(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard/run-1"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 3.0), (2, 2.5), (3, 2.25), (4, 2.0)]
    assert "samples/text_summary" in events.Tags()["tensors"]


def test_wandb_runs_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    crash_and_resume(tmp_path, "wandb")
    assert len(list((tmp_path / "wandb/wandb").glob("offline-run-*/run-run-1.wandb"))) == 2


def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("dvclive")
    (tmp_path / "dvclive").write_text("a file where the folder should be")
    said: list[str] = []
    (tracker,) = tracking.open_all(TrackingConfig(folder=str(tmp_path)), "r", {}, [], said.append)
    tracker.add(1, {"loss": 1.0})
    tracker.close()
    assert len(said) == 1 and "no curves in dvclive from here on" in said[0]


def test_what_is_not_installed_is_named_and_the_default_is_no_obstacle(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    said: list[str] = []
    assert tracking.open_all(TrackingConfig(folder=str(tmp_path)), "r", {}, [], said.append) == []
    assert "headwater-model[dvclive]" in said[0]
    with pytest.raises(UserError, match=r"pip install 'headwater-model\[wandb\]'"):
        tracking.open_all(TrackingConfig(to=["wandb"]), "r", {}, [], said.append)
