"""The same bytes from local processes, a real Ray cluster and a real one-node Slurm."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage

from headwater_data._contracts.errors import UserError
from headwater_data._contracts.stage import fingerprint
from headwater_data.cli import STAGES
from headwater_data.config import ExecutorConfig, SignalsConfig

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory, topics) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    frames = [documents_frame(topics[i::3], prefix=f"{i}-") for i in range(3)]
    return documents_folder(folder / "in", *frames)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, documents) -> dict[str, str]:
    return digests(run_stage("signals", tmp_path_factory.mktemp("local"), {"documents": documents}, workers=1))


def digests(out: Path) -> dict[str, str]:
    files = [p for p in out.rglob("*") if p.is_file()]
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def test_two_processes_give_the_same_bytes(tmp_path, documents, expected):
    assert digests(run_stage("signals", tmp_path, {"documents": documents}, workers=2)) == expected


def test_where_a_stage_runs_is_no_part_of_its_identity():
    stage = next(s for s in STAGES if s.name == "signals")
    here = SignalsConfig()
    there = SignalsConfig(workers=64, executor=ExecutorConfig(kind="slurm", partition="big"))
    marks = [fingerprint(stage, "headwater-data", "0", config, {}) for config in (here, there)]
    assert marks[0] == marks[1]
    other = SignalsConfig(language_characters=500)
    assert fingerprint(stage, "headwater-data", "0", other, {}) != marks[0]


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory) -> Iterator[str]:
    """`ray start --head` in a process of its own; its address."""
    pytest.importorskip("ray")
    ports = free_ports(2)
    tool = Path(sys.executable).parent / "ray"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_MEMORY_MONITOR": "1"}
    start = [tool, "start", "--head", f"--port={ports[0]}", "--num-cpus=2", "--include-dashboard=false",
             "--node-ip-address=127.0.0.1", "--memory=8000000000", "--object-store-memory=100000000",
             "--temp-dir=" + str(Path("/tmp") / f"ray-{os.getpid()}"), "--disable-usage-stats"]  # fmt: skip
    done = subprocess.run(start, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    yield f"127.0.0.1:{ports[0]}"
    import ray

    ray.shutdown()
    subprocess.run([tool, "stop", "--force"], capture_output=True)
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def test_a_ray_cluster_gives_the_same_bytes(tmp_path, documents, expected, ray_head):
    executor = {"kind": "ray", "ray_address": ray_head, "memory_gb": 1}
    out = run_stage("signals", tmp_path, {"documents": documents}, workers=2, executor=executor)
    assert digests(out) == expected


def test_a_missing_ray_cluster_is_named(tmp_path, documents):
    ray = pytest.importorskip("ray")
    ray.shutdown()
    executor = {"kind": "ray", "ray_address": f"127.0.0.1:{free_ports(1)[0]}"}
    with pytest.raises(UserError, match="no cluster at .*start one with .ray start --head"):
        run_stage("signals", tmp_path, {"documents": documents}, executor=executor)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Path]:
    """munged, slurmctld and slurmd of this test's own on 127.0.0.1; the folder of their files."""
    needed = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch")
    places = os.environ["PATH"] + ":/usr/sbin"
    missing = [tool for tool in needed if shutil.which(tool, path=places) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing more'}: apt-get install slurm-wlm munge")
    folder = Path("/tmp") / f"slurm-{os.getpid()}"  # a socket's path must be short
    for part in ("state", "spool"):
        (folder / part).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    conf = SLURM_CONF.format(host=host, folder=folder, ports=free_ports(2), cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(conf)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": places}
    subprocess.run(["mungekey", "--create", f"--keyfile={folder}/munge.key"], check=True, env=environment)
    options = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--force", "--foreground", *(f"--{name}={folder}/munge.{end}" for name, end in options.items())]
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with open(folder / f"{command[0]}.out", "w") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        for _ in range(60):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, env=environment)
            if state.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            logs = "\n".join(p.read_text()[-800:] for p in folder.glob("slurm*.log"))
            pytest.fail(f"slurm did not come up: {state.stdout}{state.stderr}\n{logs}")
        yield folder
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm_executor(slurm, monkeypatch) -> dict:
    monkeypatch.setenv("SLURM_CONF", str(slurm / "slurm.conf"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    return {"kind": "slurm", "partition": "short", "memory_gb": 1, "time": "00:05:00", "poll_seconds": 0.5}


def test_a_slurm_job_array_gives_the_same_bytes(tmp_path, documents, expected, slurm_executor):
    out = run_stage("signals", tmp_path, {"documents": documents}, workers=2, executor=slurm_executor)
    assert digests(out) == expected
    logs = list((tmp_path / "work-signals" / "signals.tasks" / "slurm_logs").glob("*.out"))
    assert len(logs) == 2  # two jobs took the three shards


def test_shards_that_slurm_left_undone_are_named_and_the_finished_kept(tmp_path, documents, expected, slurm_executor):
    bad = tmp_path / "in"
    shutil.copytree(documents, bad)
    frame = pl.read_parquet(bad / "part-00001.parquet")
    frame.drop("lang").write_parquet(bad / "part-00001.parquet", row_group_size=2000)
    with pytest.raises(UserError, match="1 of 3 shards were not done by slurm"):
        run_stage("signals", tmp_path, {"documents": bad}, workers=3, executor=slurm_executor)
    done = list((tmp_path / "work-signals" / "signals.tasks" / "completions").iterdir())
    assert sorted(p.name for p in done) == ["00000", "00002"]
