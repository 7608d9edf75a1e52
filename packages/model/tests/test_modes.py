"""Local and asynchronous SGD as a user runs them: they learn, go on after a kill, and repeat to the byte."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch.distributed as dist

from headwater_model import pretrain, steering
from headwater_model._contracts import manifest as artefacts
from headwater_model._contracts.config import parse
from headwater_model._contracts.errors import UserError
from headwater_model.config import PlanConfig, PretrainConfig
from headwater_model.decentralised import exchange
from headwater_model.decentralised.peers import Peers
from headwater_model.facts import read_facts
from headwater_model.plan import make

STEPS = 40
PLAN = {
    "budget": {"flops": 1e13}, "context": 32, "batch": 8, "lr": 0.01,
    "model": {"layers": 1, "hidden": 32, "heads": 2},
}  # fmt: skip
RUN: dict[str, Any] = {
    "steps": STEPS, "checkpoint_every": 6, "validate_every": 6, "log_every": 4, "threads": 1, "heldout_tokens": 2000,
    "micro_batch": 4, "tracking": {"to": []}, "restarts": {"backoff_s": 0},
}  # fmt: skip
LOCAL = {**RUN, "local": {"inner_steps": 4}, "changes": [{"step": 9, "set": {"optimizer.lr": 0.005}}]}
SERVED = {**RUN, "asynchronous": {"staleness": 1, "arrivals": "seeded"}}


@pytest.fixture(scope="module")
def inputs(tokens_folder: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    plan = tmp_path_factory.mktemp("plan")
    made = make(parse(PlanConfig, PLAN, "plan"), read_facts(tokens_folder))
    artefacts.write_atomic(plan / "plan.json", artefacts.canonical_json(made))
    artefacts.write(plan, artefacts.Manifest("plan", artefacts.SCHEMAS["plan"], "t", "0", "plan", {}))
    return {"plan": plan, "tokens": tokens_folder, "tokenizer": tokenizer_folder}


@pytest.fixture(scope="module")
def runs(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of modes_job.py."""
    folder = tmp_path_factory.mktemp("runs")
    with ExitStack() as open_ones:
        probes = [open_ones.enter_context(socket.socket()) for _ in range(4)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
    named = {name: str(path) for name, path in inputs.items()}
    job = {"folder": str(folder), "inputs": named, "ports": ports, "local": LOCAL, "asynchronous": SERVED}
    (folder / "job.json").write_text(json.dumps(job))
    ranks.run("modes_job", folder, 3)
    return folder


def command(inputs: dict[str, Path], folder: Path, config: dict[str, Any]) -> subprocess.Popen[str]:
    """`headwater-model pretrain` under way."""
    named = [part for name, path in inputs.items() for part in ("--in", f"{name}={path}")]
    where = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    settings = [part for name, value in config.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    return subprocess.Popen(
        [sys.executable, "-m", "headwater_model.cli", "pretrain", *named, *where, *settings],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def rank(parent: int, number: int) -> int:
    """The process of a rank that `parent` started."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={number}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no rank {number}")


def files(out: Path) -> dict[str, str]:
    """What a run leaves, by hash."""
    return {
        p.relative_to(out).as_posix(): artefacts.sha256_file(p)
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name != "manifest.json"
    }


def metrics(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text())


def test_replicas_learn_and_hand_over_weights_at_meetings_alone(runs: Path) -> None:
    found = metrics(runs / "whole/out")
    assert found["heldout_bits_per_byte"] < 0.95 * found["untrained_bits_per_byte"]
    assert found["communicated_bytes"] == STEPS / 4 * 4 * found["parameters"]
    assert found["synchronous_bytes"] == 4 * found["communicated_bytes"]
    assert found["tokens"] == STEPS * 8 * 32 and found["events"] == {"change": 1, "optimizer": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the rank in /proc")
def test_a_run_of_which_a_replica_was_killed_goes_on_to_the_same_bytes(inputs, runs: Path, tmp_path: Path) -> None:
    running = command(inputs, tmp_path, LOCAL)
    end = time.monotonic() + 300
    while not all(list(tmp_path.glob(f"work/pretrain/*/replica-{n}/checkpoints/step-*")) for n in (0, 1)):
        assert running.poll() is None and time.monotonic() < end, running.communicate()[0]
        time.sleep(0.01)
    os.kill(rank(running.pid, 1), signal.SIGKILL)
    with pytest.raises(UserError, match=r"take no orders.*pretrain\.changes"):
        steering.find_run(tmp_path / "work")
    printed = running.communicate()[0]
    assert running.returncode == 0 and "rank 1: killed by SIGKILL" in printed and "going on from step" in printed, (
        printed
    )
    assert files(tmp_path / "out") == files(runs / "whole/out")


def test_a_replica_that_is_asked_to_end_ends_all_at_their_next_meeting(runs: Path) -> None:
    for replica in (0, 1):
        assert json.loads((runs / f"ended/ended-{replica}.json").read_text()) == [143, "step-00000008"]
    assert files(runs / "ended/out") == files(runs / "whole/out")


def test_a_server_and_its_workers_learn_and_repeat_a_seeded_run_to_the_byte(inputs, runs: Path, tmp_path: Path) -> None:
    running = command(inputs, tmp_path, SERVED)
    printed = running.communicate(timeout=500)[0]
    assert running.returncode == 0 and "pretrain.spikes acts in synchronous training only" in printed, printed
    found = metrics(tmp_path / "out")
    assert found["heldout_bits_per_byte"] < 0.9 * found["untrained_bits_per_byte"]
    assert 0 < found["staleness"] < found["staleness_max"] <= 3  # (2 x 1 + 1)(2 - 1)
    assert found["communicated_bytes"] == STEPS * (4 + 2) * found["parameters"]  # bfloat16 weights, float32 gradients
    assert found["steps"] == STEPS and found["synchronous_bytes"] == STEPS * 2 * 4 * found["parameters"]
    assert files(tmp_path / "out") == files(runs / "served/out")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"local": {}, "asynchronous": {}}, "two modes; set one"),
        ({"local": {}, "parallel": {"zero": 1}}, "set parallel.zero 0"),
        ({"local": {}, "checkpoints": {"last": 1}}, "checkpoints.last 2 or more"),
        ({"asynchronous": {}, "parallel": {"tensor": 2}}, "a worker is one rank"),
        ({"asynchronous": {}, "schedule": {"unit": "tokens"}}, "schedule.unit steps"),
        ({"asynchronous": {}, "launch": {"kind": "srun"}}, "launch.kind here"),
        ({"local": {"replicas": 4}}, "batch 8 is no multiple of the 16 sequences"),
        ({"local": {}, "changes": [{"step": 1, "set": {"batch": 16}}]}, "batch can't change in a run of this kind"),
        ({"asynchronous": {}, "changes": [{"step": 1, "set": {"activation": "swiglu"}}]}, "activation can't change"),
    ],
)
def test_what_a_mode_cannot_do_is_refused_in_one_line(wrong: dict[str, Any], told: str, inputs) -> None:
    with pytest.raises(UserError) as refused:
        config = parse(PretrainConfig, {**RUN, **wrong}, "pretrain")
        pretrain.check(config, pretrain.read_plan(inputs["plan"]), inputs)
    assert told in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_means_over_replicas_count_every_token_of_a_source_once() -> None:
    rows = [
        {"loss": 2.0, "count": 10.0, "loss/a": 1.0, "share/a": 0.1, "loss/b": 0.0, "share/b": 0.0},
        {"loss": 4.0, "count": 30.0, "loss/a": 3.0, "share/a": 0.1, "loss/b": 0.0, "share/b": 0.0},
    ]
    store, found = dist.HashStore(), {}

    def meet(rank: int) -> None:
        found[rank] = Peers(store, rank, 2).average(rows[rank])

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {"loss": 3.5, "count": 40.0, "loss/a": 2.5, "share/a": 0.1, "loss/b": 0.0, "share/b": 0.0}
    assert found[0] == found[1] == pytest.approx(expected)


def test_bytes_and_staleness_of_a_run_are_those_of_its_steps_however_rows_are_cut() -> None:
    steps = [{"communicated_bytes": 6.0, "synchronous_bytes": 8.0, "staleness": float(s)} for s in (0, 3, 1, 2, 1)]
    cut = [{"step": end, **exchange.of_steps(steps[first:end])} for first, end in ((0, 4), (4, 5))]
    assert exchange.of_run(cut) == {
        "communicated_bytes": 30.0, "synchronous_bytes": 40.0, "staleness": 1.4, "staleness_max": 3.0,
    }  # fmt: skip
    assert exchange.of_steps([{"loss": 1.0}]) == {} == exchange.of_run([{"loss": 1.0}])
