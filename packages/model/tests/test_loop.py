"""What may happen between two steps: changes of course, orders, spikes, crashes, other beginnings; all repeatable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater_model import flight_log, pretrain, pretrained, steering
from headwater_model._contracts import manifest as artefacts
from headwater_model._contracts.config import parse
from headwater_model._contracts.errors import UserError
from headwater_model.config import PlanConfig, PretrainConfig
from headwater_model.facts import read_facts
from headwater_model.gpt import build
from headwater_model.plan import make
from headwater_model.task import Pretraining

STEPS = 24
PLAN = {
    "budget": {"flops": 1e13}, "context": 32, "batch": 8, "lr": 0.01,
    "model": {"layers": 2, "hidden": 32, "heads": 2, "activation": "gelu"},
}  # fmt: skip
RUN: dict[str, Any] = {
    "steps": STEPS, "checkpoint_every": 4, "validate_every": 8, "log_every": 4, "threads": 1, "heldout_tokens": 2000,
    "precision": "float32", "schedule": {"kind": "constant", "warmup": 0.0}, "tracking": {"to": []}, "spikes": None,
}  # fmt: skip


class Crash(Exception):
    """The machine is gone."""


class Runs:
    """Runs in folders of one test."""

    def __init__(self, folder: Path, tokens: Path, tokenizer: Path):
        self.folder, self.tokens = folder, tokens
        self.inputs = {"tokens": tokens, "tokenizer": tokenizer}
        self.said: list[str] = []

    def plan(self, **changed: Any) -> Path:
        values = {**PLAN, **changed, "model": {**PLAN["model"], **changed.get("model", {})}}
        place = self.folder / f"plan-{len(list(self.folder.glob('plan-*')))}"
        plan = make(parse(PlanConfig, values, "plan"), read_facts(self.tokens))
        artefacts.write_atomic(place / "plan.json", artefacts.canonical_json(plan))
        return place

    def run(self, name: str, plan: Path | None = None, report: Any = None, inputs: Any = (), **changed: Any) -> Path:
        """Train, or go on, and answer the artefact's folder."""
        config = parse(PretrainConfig, {**RUN, **changed}, "pretrain")
        named = {**self.inputs, "plan": plan or self.plan(), **dict(inputs)}
        self.said = []
        out = self.folder / name / "out"
        pretrain.check(config, pretrain.read_plan(named["plan"]), named)
        pretrain.train(config, named, self.folder / name / "work", out, self.said.append, lambda _: None, report)
        artefacts.write(
            out, artefacts.Manifest("checkpoint", artefacts.SCHEMAS["checkpoint"], "t", "0", "pretrain", {})
        )
        return out

    def crash(self, name: str, step: int, **arguments: Any) -> None:
        """The same, but ended at the validation of a step, as if the machine had gone."""

        def report(at: int, _: float) -> None:
            if at == step:
                raise Crash

        with pytest.raises(Crash):
            self.run(name, report=report, **arguments)


@pytest.fixture
def runs(tmp_path: Path, tokens_folder: Path, tokenizer_folder: Path) -> Runs:
    return Runs(tmp_path, tokens_folder, tokenizer_folder)


def files(out: Path) -> dict[str, str]:
    """What a run leaves, by hash; the config that it was given left out."""
    paths = (p for p in out.rglob("*") if p.is_file() and p.name not in ("manifest.json", "config.json", "sha256.json"))
    return {p.relative_to(out).as_posix(): artefacts.sha256_file(p) for p in sorted(paths)}


def state(out: Path) -> dict[str, str]:
    """Weights and optimiser, by hash."""
    return {name: digest for name, digest in files(out).items() if name.startswith("final/state/__")}


def rows(out: Path, key: str) -> list[float]:
    return [row[key] for row in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if key in row]


CHANGES = [
    {"step": 6, "set": {"optimizer.lr": 0.003}, "why": "the loss is flat"},
    {"step": 10, "set": {"optimizer.kind": "lion", "optimizer.lr": 0.001}},
    {"step": 14, "set": {"activation": "relu", "batch": 16}},
]


def test_changes_are_made_logged_and_flown_again_by_another_run(runs: Runs) -> None:
    pytest.importorskip("lion_pytorch")
    plan = runs.plan()
    out = runs.run("changed", plan, changes=CHANGES)
    events = flight_log.read(out / "flight.jsonl")
    made = [(e.step, e.details["set"]) for e in events if e.what == "change"]
    assert made == [(c["step"], c["set"]) for c in CHANGES]
    assert [(e.step, e.why) for e in events if e.what == "optimizer"] == [
        (6, "optimizer adamw: settings changed; masters and moments kept"),
        (10, "optimizer adamw to lion: masters kept; lion: first moment kept from adamw"),
    ]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tokens"] == 32 * (14 * 8 + 10 * 16) and metrics["events"] == {"change": 3, "optimizer": 2}
    assert json.loads((out / "run.json").read_text())["model"]["activation"] == "relu"
    assert state(out) != state(runs.run("plain", plan))
    again = runs.run("again", plan, inputs={"flight": out})
    assert files(again) == files(out)


def test_a_run_that_crashed_after_a_hot_swap_goes_on_to_the_same_bytes(runs: Runs) -> None:
    plan = runs.plan()
    swap = [
        {"step": 7, "set": {"optimizer.kind": "sgd", "optimizer.lr": 0.1}},
        {"step": 7, "set": {"activation": "relu"}},
    ]
    given = {"changes": swap, "checkpoints": {"asynchronous": False}}  # that of step 12 is there at step 16
    whole = runs.run("whole", plan, **given)
    runs.crash("crashed", 16, plan=plan, **given)
    assert not (runs.folder / "crashed/out").exists()
    assert files(runs.run("crashed", plan, **given)) == files(whole)
    assert any("going on from step 12" in line for line in runs.said)


def test_a_gated_activation_changes_to_another_and_back(runs: Runs) -> None:
    plan = runs.plan(model={"activation": "swiglu"})
    there = [{"step": 8, "set": {"activation": "geglu"}}]
    out = runs.run("there", plan, changes=there)
    assert state(out) != state(runs.run("not", plan))
    runs.crash("crashed", 16, plan=plan, changes=there)
    assert files(runs.run("crashed", plan, changes=there)) == files(out)
    back = [{"step": 0, "set": {"activation": "geglu"}}, {"step": 0, "set": {"activation": "swiglu"}}]
    assert state(runs.run("back", plan, changes=back)) == state(runs.run("stayed", plan))


def test_an_order_reaches_a_run_under_way_and_survives_a_crash(runs: Runs, monkeypatch, capsys) -> None:
    plan = runs.plan()

    def order(step: int, _: float) -> None:
        if step == 8:
            work = runs.folder / "steered/work"
            arguments = {"work": work, "set": ["optimizer.lr=0.002"], "why": "by hand"}
            steering.steer(type("Args", (), arguments)())
        if step == 16:
            raise Crash

    with pytest.raises(Crash):
        runs.run("steered", plan, report=order)
    steered = runs.run("steered", plan)
    event, kept = flight_log.read(steered / "flight.jsonl")
    assert (event.step, event.why, event.details["set"]) == (8, "by hand", {"optimizer.lr": 0.002})
    assert kept.what == "optimizer"
    told = runs.run("told", plan, changes=[{"step": 8, "set": {"optimizer.lr": 0.002}}])
    assert state(told) == state(steered)
    assert "will be changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{"step": 1, "set": {"optimizer.lrr": 1}}], "did you mean lr"),
        ([{"step": 1, "set": {"activation": "swiglu"}}], "needs other weights than gelu"),
        ([{"step": 1, "set": {"batch": 12}}], "batch 12 is no multiple of 8"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_before_the_first_step(runs: Runs, changes, told: str) -> None:
    with pytest.raises(UserError, match=told):
        runs.run("refused", changes=changes)
    assert not (runs.folder / "refused/work").exists()


def planted(monkeypatch: pytest.MonkeyPatch, places: range) -> None:
    """Random labels at these places of the data's order: a corrupt shard."""
    draw = Pretraining.draw

    def bad(task: Pretraining, first: int, size: int) -> Any:
        batches = draw(task, first, size)
        if first in places:
            drawn = torch.Generator().manual_seed(first)
            for batch in batches:
                batch["labels"] = torch.randint(500, batch["labels"].shape, generator=drawn)
        return batches

    monkeypatch.setattr(Pretraining, "draw", bad)


SPIKES = {"window": 32, "warmup": 16, "deviations": 8.0}
LONG = {"steps": 64, "validate_every": 64, "checkpoint_every": 8}


@pytest.mark.parametrize("measures", [["skip", "stop"], ["rollback", "stop"]])
def test_bad_batches_are_left_out_and_the_run_ends_where_a_clean_one_does(runs: Runs, monkeypatch, measures) -> None:
    plan = runs.plan()
    clean = runs.run("clean", plan, **LONG)
    planted(monkeypatch, range(52 * 8, 58 * 8))
    blind = runs.run("blind", plan, **LONG)
    guarded = runs.run("guarded", plan, **LONG, spikes={**SPIKES, "measures": measures, "skips": 8, "skip_after": 5})
    losses = [rows(out, "heldout_loss")[-1] for out in (clean, blind, guarded)]
    assert abs(losses[2] - losses[0]) < 0.1 < losses[1] - losses[0], losses
    events = flight_log.read(guarded / "flight.jsonl")
    assert {event.what for event in events} == {measures[0]}
    assert 6 <= len(events) <= 8 if measures == ["skip", "stop"] else len(events) <= 2


def test_a_learning_rate_that_explodes_is_lowered_and_the_run_recovers_even_through_a_crash(runs: Runs) -> None:
    plan = runs.plan()
    explodes = [{"step": 36, "set": {"optimizer.lr": 3.0}}]
    policy = {**SPIKES, "measures": ["lower_lr", "stop"], "lr_factor": 0.05, "lower_lrs": 4, "back": 1}
    clean = runs.run("clean", plan, **LONG)
    arguments = {**LONG, "changes": explodes, "spikes": policy, "validate_every": 16}
    recovered = runs.run("recovered", plan, **arguments)
    events = [event.what for event in flight_log.read(recovered / "flight.jsonl")]
    assert events[0] == "change" and "lower_lr" in events and "stop" not in events
    assert rows(recovered, "heldout_loss")[-1] < rows(clean, "heldout_loss")[-1] + 0.3
    runs.crash("crashed", 48, plan=plan, **arguments)
    assert files(runs.run("crashed", plan, **arguments)) == files(recovered)


def test_a_run_that_nothing_helps_ends_with_one_line_and_keeps_its_history(runs: Runs) -> None:
    policy = {**SPIKES, "measures": ["skip", "stop"], "skips": 1}
    with pytest.raises(UserError, match="nothing is left to try"):
        runs.run("lost", **LONG, changes=[{"step": 20, "set": {"optimizer.lr": 50.0}}], spikes=policy)
    assert flight_log.read(runs.folder / "lost" / "work" / "flight.jsonl")[-1].what == "stop"


def test_training_begins_with_an_exported_models_weights(runs: Runs, shape, tokenizer_folder: Path) -> None:
    given = build(shape.model_copy(update={"context": 32}), seed=7)
    pretrained.save(runs.folder / "given", given, shape, tokenizer_folder)
    same = ("layers", "hidden", "heads", "kv_heads", "activation")
    plan = runs.plan(model={name: getattr(shape, name) for name in same})
    started = runs.run("started", plan, inputs={"start": runs.folder / "given"}, steps=4)
    fresh = runs.run("fresh", plan, steps=4, seed=7)
    assert rows(started, "heldout_loss")[0] == pytest.approx(rows(fresh, "heldout_loss")[0], abs=1e-4)
    other = runs.plan(model={"layers": 1})
    with pytest.raises(UserError, match="layers is 2, and 1 in the plan"):
        runs.run("other", other, inputs={"start": runs.folder / "given"}, steps=4)


def test_from_a_final_state_training_goes_on_exactly(runs: Runs) -> None:
    plan = runs.plan()
    half = runs.run("half", plan, steps=12)
    on = runs.run("on", plan, inputs={"start": half}, steps=STEPS)
    whole = runs.run("whole", plan)
    assert state(on) == state(whole)
    with pytest.raises(UserError, match="has 12 steps already"):
        runs.run("none", plan, inputs={"start": half}, steps=12)


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "prefix"},
        {"kind": "encoder", "position": "learned", "norm": "layernorm", "biases": True},
        {"kind": "encoder_decoder", "position": "relative"},
    ],
    ids=lambda model: model["kind"],
)
def test_every_kind_of_model_learns_by_its_own_objective(runs: Runs, model: dict[str, Any]) -> None:
    out = runs.run("kind", runs.plan(model=model, vocab_multiple=64), steps=40, validate_every=40)
    losses = rows(out, "heldout_loss")
    assert losses[-1] < losses[0] - 0.3, losses
    assert "heldout_bits_per_byte" not in json.loads((out / "metrics.json").read_text())
    assert files(
        runs.run("kind-again", runs.plan(model=model, vocab_multiple=64), steps=40, validate_every=40)
    ) == files(out)


def test_a_ramp_reads_what_the_full_batch_would_have_read_in_more_steps(runs: Runs) -> None:
    ramp = {"start": 8, "increment": 8, "samples": 32}
    out = runs.run("ramp", runs.plan(batch=16), ramp=ramp, steps=8)
    metrics = json.loads((out / "metrics.json").read_text())
    assert 8 * 8 * 32 < metrics["tokens"] < 8 * 16 * 32


def test_speed_and_utilisation_are_measured_and_curves_are_live(runs: Runs, tmp_path: Path) -> None:
    pytest.importorskip("dvclive")
    config = parse(PretrainConfig, {**RUN, "tracking": {"folder": str(tmp_path / "live"), "samples_every": 12}}, "p")
    named = {**runs.inputs, "plan": runs.plan()}
    measured = pretrain.train(config, named, tmp_path / "w", tmp_path / "o", lambda _: None, lambda _: None)
    assert 0 < measured["utilisation"] < 1 and measured["tokens_per_second"] > 0 and measured["memory_gb"] > 0.1
    curves = {
        p.relative_to(tmp_path / "live/dvclive/plots/metrics").as_posix() for p in tmp_path.rglob("live/**/*.tsv")
    }
    assert {"train/loss.tsv", "heldout/bits_per_byte.tsv", "speed/utilisation.tsv", "train/grad_norm.tsv"} <= curves
    assert (tmp_path / "live/dvclive/samples.md").read_text().count("## step") == 4
