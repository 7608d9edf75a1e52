"""Ranks die, hang and fail: what can go on goes on, what cannot ends with one line, the weights are the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_model import launch
from headwater_model._contracts.errors import UserError
from headwater_model.config import RestartConfig
from headwater_model.launch import Failure, History

TESTS = Path(__file__).parent
KEEN = RestartConfig(restarts=3, backoff_s=0.05)


@pytest.fixture(autouse=True)
def ranks_find_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def start(how: str, folder: Path, restarts: RestartConfig | None = KEEN) -> list[dict]:
    events: list[dict] = []
    launch.run("rank_job", [how, "12", str(folder)], 2, folder / "ranks", restarts, events.append)
    assert [(folder / f"saved-{rank}").read_text() for rank in (0, 1)] == ["12", "12"]
    return events


def attempts(folder: Path) -> int:
    return len((folder / "attempts-0").read_text())


def test_a_killed_rank_brings_all_back_and_is_named_though_others_complain(tmp_path):
    assert start("killed-once", tmp_path) == [
        {"step": 5, "what": "restart", "why": "rank 1: killed by SIGKILL"},
    ]
    assert attempts(tmp_path) == 2


def test_without_restarts_a_killed_rank_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^rank 1: killed by SIGKILL$"):
        start("killed", tmp_path, None)
    assert attempts(tmp_path) == 1


def test_a_fault_that_comes_again_at_the_same_step_is_not_tried_a_third_time(tmp_path):
    with pytest.raises(UserError, match=r"^rank 1: ZeroDivisionError: a bug \(after 2 failures"):
        start("fault", tmp_path)
    assert attempts(tmp_path) == 2 and "Traceback" in (tmp_path / "ranks/rank-1.log").read_text()


def test_what_the_user_must_mend_is_not_tried_again(tmp_path):
    with pytest.raises(UserError, match=r"^rank 1: the tokens are broken; encode again$"):
        start("user", tmp_path)
    assert attempts(tmp_path) == 1


def test_a_hang_ends_itself_shows_where_and_is_restarted(tmp_path):
    events = start("hang-once", tmp_path)
    assert len(events) == 1 and events[0]["step"] == 5 and "rank 1: hung; stacks in" in events[0]["why"]
    assert "wait_for_ever" in (tmp_path / "ranks/rank-1.stacks").read_text()


def test_sigterm_reaches_the_ranks_and_ends_the_launcher_with_143(tmp_path):
    def send() -> None:
        while not all((tmp_path / f"attempts-{rank}").exists() for rank in (0, 1)):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as ended:
        start("hang", tmp_path)
    assert ended.value.code == 143 and attempts(tmp_path) == 1


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["killed", "fault"]), st.sampled_from("ab"))),
    st.integers(0, 4),
)
def test_it_never_restarts_more_often_in_a_row_than_allowed_nor_twice_after_the_same_fault(failures, restarts):
    config = RestartConfig(restarts=restarts, backoff_s=1, backoff_max_s=5)
    history, before, furthest, row = History(config), None, -1, 0
    for step, kind, why in failures:
        failure = Failure(0, step, kind, why)
        pause = history.pause(failure)
        row = 1 if step > furthest else row + 1
        furthest = max(furthest, step)
        if pause is None:
            assert row > restarts or (kind == "fault" and before == (step, why))
            break
        assert row <= restarts and pause == min(5, 2 ** (row - 1))
        before = (step, why)


STEPS = 200
PLAN = {
    "model": {"layers": 2, "hidden": 32, "heads": 2, "vocab": 512, "context": 32},
    "batch": 8, "steps": STEPS, "tokens": STEPS * 8 * 32, "lr": 0.01,
}  # fmt: skip
CONFIG = {
    "checkpoint_every": 10, "validate_every": STEPS, "log_every": 5, "threads": 1, "micro_batch": 4,
    "parallel": {"data": 2},
    "restarts": {"restarts": 100, "backoff_s": 0.1, "hang_floor_s": 60},
}  # fmt: skip


@pytest.fixture(scope="module")
def job(tokens_folder: Path, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Make the job file of a run of two ranks in a folder of its own."""
    plan = tmp_path_factory.mktemp("plan")
    (plan / "plan.json").write_text(json.dumps(PLAN))
    inputs = {"tokens": str(tokens_folder), "tokenizer": str(tokenizer_folder), "plan": str(plan)}

    def make(folder: Path) -> Path:
        (folder / "out").mkdir(parents=True)
        path = folder / "job.json"
        path.write_text(
            json.dumps({"config": CONFIG, "inputs": inputs, "work": str(folder / "work"), "out": str(folder / "out")})
        )
        return path

    return make


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    launch.run("headwater_model.pretrain", [str(job(folder / "run"))], 2, folder / "ranks")
    return bytes_of(folder / "run/out")


def test_ranks_killed_at_random_leave_the_bytes_of_an_uninterrupted_run(job, uninterrupted, tmp_path):
    """As many kills as HEADWATER_KILLS says."""
    from kills import Killer

    with Killer(int(os.environ.get("HEADWATER_KILLS", "2")), seed=1, ranks=tmp_path / "ranks") as killer:
        launch.run(
            "headwater_model.pretrain", [str(job(tmp_path / "run"))], 2, tmp_path / "ranks",
            RestartConfig(**CONFIG["restarts"]), killer.events.append,
        )  # fmt: skip
    print(*killer.killed, *killer.events, sep="\n")
    assert len(killer.killed) == killer.wanted and killer.events  # one attempt may lose both ranks
    assert bytes_of(tmp_path / "run/out") == uninterrupted


def test_under_torchrun_a_killed_rank_is_restarted_to_the_same_bytes(job, uninterrupted, tmp_path):
    path = job(tmp_path / "run")
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    command = ["-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--max-restarts=2"]
    running = subprocess.Popen(
        [sys.executable, *command, "-m", "headwater_model.pretrain", str(path)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not list((tmp_path / "run" / "work" / "checkpoints").glob("step-*")):
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.05)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    printed = running.communicate()[0]
    assert running.returncode == 0 and "going on from step" in printed, printed
    assert bytes_of(tmp_path / "run/out") == uninterrupted
