"""Studies on a tiny model: killed they go on, results are read back, predictions are checked, tables have intervals."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from headwater_model import cli
from headwater_model._contracts.errors import UsageError, UserError
from headwater_model.studies import ablate, isoflop, search, trial

SMALL = [
    "plan.context=32", "plan.batch=8", "plan.head_width=8", "pretrain.micro_batch=8", "pretrain.heldout_tokens=1000",
    "pretrain.precision=float32", "pretrain.validate_every=8", "pretrain.checkpoint_every=1000", "pretrain.spikes=null",
]  # fmt: skip
FIXED = [*SMALL, "plan.model.layers=1", "plan.model.hidden=16", "plan.model.heads=2", "pretrain.steps=16"]


@pytest.fixture
def given(tokens_folder: Path, tokenizer_folder: Path) -> list[str]:
    return ["--tokens", str(tokens_folder), "--tokenizer", str(tokenizer_folder), "--workers", "1"]


def sets(items: list[str]) -> list[str]:
    return [part for item in items for part in ("--set", item)]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are processes that import torch for some seconds; here trials run one after the other."""

    def run_all(folder: Path, trials: list[trial.Trial], workers: int, log) -> list[trial.Result]:  # type: ignore[no-untyped-def]
        for one in trial.queue(folder, trials):
            trial.run(folder, one.name)
        return [trial.read(folder, one.name) for one in trials]

    monkeypatch.setattr(trial, "run_all", run_all)


def test_isoflop_fits_a_law_predicts_and_is_held_to_it(tmp_path: Path, given, capsys) -> None:
    study = tmp_path / "study"
    command = ["isoflop", str(study), *given, "--budgets", "1e9", "2e9", "4e9", "--sizes", "3", "--draws", "5"]
    command += ["--ratio", "0.25", "--spread", "2.5"]
    assert cli.main([*command, *sets(SMALL)]) == 0, capsys.readouterr().err
    rows = list(csv.DictReader((study / "points.csv").read_text().splitlines()))
    assert len(rows) == 9 and len({row["parameters"] for row in rows}) > 3
    fit = json.loads((study / "fit.json").read_text())
    assert fit["prediction"]["flops"] == 1.2e10 and fit["prediction"]["loss"]["value"] < 6.3
    assert (study / "isoflop.html").read_text().count("<circle") >= 9
    assert "prediction for 1.2e+10 FLOPs" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in study.glob("trials/*/result.json")}
    assert cli.main([*command, *sets(SMALL)]) == 0  # nothing runs again
    assert before == {p: p.stat().st_mtime_ns for p in study.glob("trials/*/result.json")}
    assert cli.main([*command, *sets([*SMALL, "plan.lr=0.1"])]) == 1
    assert "holds a study with other about" in capsys.readouterr().err


def test_the_queue_names_every_trial_and_one_can_be_run_alone(tmp_path: Path, given, capsys) -> None:
    """Three sizes that come out as two shapes are two trials."""
    sizes = ["--budgets", "4e9", "--sizes", "3", "--ratio", "0.25", "--spread", "1.2"]
    command = ["isoflop", str(tmp_path), *given, *sizes, "--queue", *sets(SMALL)]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"headwater-model trial {tmp_path} 4e+09-{n}" for n in (1, 3)]
    assert cli.main(lines[0].split()[1:]) == 0
    assert "held-out loss" in capsys.readouterr().out and trial.read(tmp_path, "4e+09-1").loss < 6.3
    with pytest.raises(UserError, match="no result yet"):
        trial.read(tmp_path, "4e+09-3")


def test_a_search_finds_the_better_learning_rate_transfers_it_and_goes_on(tmp_path: Path, given, capsys) -> None:
    pytest.importorskip("optuna")
    space = tmp_path / "space.yaml"
    space.write_text("plan.lr: [0.00001, 0.01]\npretrain.optimizer.kind: [adamw, muon]\n")
    command = ["search", str(tmp_path / "study"), *given, "--space", str(space), "--width", "64", *sets(FIXED)]
    assert cli.main([*command, "--trials", "4"]) == 0, capsys.readouterr().err
    best = yaml.safe_load((tmp_path / "study/best.yaml").read_text())
    assert best["plan"] == {"lr": 0.01 * 16 / 64, "model": {"hidden": 64}}
    assert cli.main([*command, "--trials", "6"]) == 0
    assert len(list((tmp_path / "study/trials").iterdir())) == 6
    assert "best: trial" in capsys.readouterr().out and "<svg" in (tmp_path / "study/search.html").read_text()


def test_a_poor_trial_is_ended_early(tmp_path: Path, given, monkeypatch) -> None:
    optuna = pytest.importorskip("optuna")
    monkeypatch.setattr(search, "UNPRUNED", 1)
    space = tmp_path / "space.yaml"
    space.write_text("plan.lr: [0.01, 0.02, 0.005, 0.0000001]\n")
    cli.main(
        ["search", str(tmp_path / "s"), *given, "--space", str(space), "--trials", "6", "--seed", "3", *sets(FIXED)]
    )
    study = optuna.load_study(study_name=search.NAME, storage=search._storage(tmp_path / "s"))
    pruned = [t for t in study.get_trials() if t.state.name == "PRUNED"]
    assert any(t.params["plan.lr"] < 1e-6 for t in pruned)
    assert not any((tmp_path / "s/trials" / f"{t.number:03}" / "work").exists() for t in pruned)


def test_an_ablation_tells_what_a_part_is_worth(tmp_path: Path, given, capsys) -> None:
    pytest.importorskip("scipy")
    parts = tmp_path / "parts.yaml"
    parts.write_text("hardly any learning rate: {plan.lr: 0.000001}\nthe same: {pretrain.log_every: 5}\n")
    command = ["ablate", str(tmp_path / "s"), *given, "--parts", str(parts), "--seeds", "2", *sets(FIXED)]
    assert cli.main([*command, "--set", "plan.lr=0.02"]) == 0, capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "s/table.csv").read_text().splitlines()))
    assert [row["part"] for row in rows] == ["baseline", "hardly any learning rate", "the same"]
    assert rows[1]["verdict"] == "worse" and float(rows[1]["low"]) > 0
    assert rows[2]["verdict"] == "no difference shown" and float(rows[2]["difference"]) == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr: [1]", "write plan.KEY"),
        ("plan.lr: {low: 1}", "give a list of values, or low, high"),
        ("plan.lr: {low: 0, high: 1, log: true}", "above 0 where the range is logarithmic"),
        ("{}", "names nothing to search"),
    ],
)
def test_a_space_that_cannot_be_searched_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        search.read_space(tmp_path / "space.yaml")


def test_parts_that_cannot_be_ablated_are_named(tmp_path: Path) -> None:
    (tmp_path / "parts.yaml").write_text("warmup: 3")
    with pytest.raises(UsageError, match="give the keys to set instead"):
        ablate.read_parts(tmp_path / "parts.yaml")
    with pytest.raises(UsageError, match="fewer|interval needs two seeds"):
        ablate.command(type("Args", (), {"seeds": 1})())


def test_a_checkpoint_is_held_against_the_law(tmp_path: Path, given, monkeypatch) -> None:
    from headwater_model._contracts import manifest as artefacts
    from headwater_model.planning.scaling import Parametric
    from headwater_model.studies.fit import Point

    law = Parametric("law", "test", 1.7, 40.0, 200.0, 0.34, 0.37)
    points = []
    for budget in (1e9, 3e9, 1e10):
        for factor in (0.5, 1, 2):
            size = law.optimum(budget).parameters * factor
            points.append(Point(budget, size, budget / 6 / size, law.loss(size, budget / 6 / size)))
    told = {"points": [vars(p) for p in points], "draws": 5}
    artefacts.write_atomic(tmp_path / "fit.json", artefacts.canonical_json(told))
    run = tmp_path / "run"
    run.mkdir()
    model = {"layers": 1, "hidden": 32, "heads": 2, "vocab": 512, "context": 32}
    from headwater_model.config import ModelConfig

    expected = law.loss(ModelConfig(**model).matrix_parameters, 1e6)
    artefacts.write_atomic(run / "run.json", json.dumps({"model": model}))
    artefacts.write_atomic(run / "metrics.json", json.dumps({"tokens": 1e6, "heldout_loss": expected * 1.1}))
    kind = artefacts.SCHEMAS["checkpoint"]
    artefacts.write(run, artefacts.Manifest("checkpoint", kind, "headwater-model", "0", "pretrain", {}))
    assert "-9.09%, outside" in isoflop.check(tmp_path, run)
    assert len((tmp_path / "checks.jsonl").read_text().splitlines()) == 1
    isoflop.check(tmp_path, run)
    assert len((tmp_path / "checks.jsonl").read_text().splitlines()) == 1


def test_trials_are_kept_as_dvc_experiments(tmp_path: Path, given, capsys, monkeypatch) -> None:
    """In a repository of its own; `dvc exp show` reads parameters and losses, and a second run keeps them once."""
    for name in ("optuna", "dvclive"):
        pytest.importorskip(name)
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], [*git, "commit", "-q", "-m", "first"]):
        subprocess.run([*([sys.executable, "-m"] if command[0] == "dvc" else []), *command], check=True)
    Path("space.yaml").write_text("plan.lr: [0.00001, 0.01]\n")
    command = ["search", "study", *given, "--space", "space.yaml", "--experiments", *sets(FIXED)]
    assert cli.main([*command, "--trials", "2"]) == 0, capsys.readouterr().err
    assert cli.main([*command, "--trials", "3"]) == 0, capsys.readouterr().err
    shown = subprocess.run([sys.executable, "-m", "dvc", "exp", "show", "--csv"], check=True, capture_output=True)
    rows = {row["Experiment"]: row for row in csv.DictReader(shown.stdout.decode().splitlines()) if row["Experiment"]}
    assert len(rows) == 3
    for number in range(3):
        loss = json.loads(Path(f"study/trials/{number:03}/result.json").read_text())["metrics"]["heldout_loss"]
        row = rows[f"study-{number:03}"]
        assert float(row["heldout_loss"]) == pytest.approx(loss, rel=1e-3)
        assert float(row["plan.lr"]) in (0.01, 0.00001)
