"""The same bytes from local processes, a real Ray cluster and a real one-node Slurm, for a stage of either package that
fans out: the data package's signals and the tokenizer's encode. And the same weights from ranks that srun starts."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from headwater_data._contracts import manifest as artefacts
from tests.conftest import environment

STAGES = {
    "signals": ("data", {"documents": "documents"}, "signals"),
    "encode": ("tokenizer", {"corpus": "corpus", "tokenizer": "tokenizer"}, "encode"),
}
"""Stage -> package, its inputs (name -> folder of the fixture), name of its pass."""

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
def inputs(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of the smoke lineage, cut into three shards."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(smoke / "artefacts/tokenizer", folder / "tokenizer")
    for name, kept, parts in (("edited", "documents", "."), ("corpus", "corpus", "train")):
        source, target = smoke / "artefacts" / name, folder / kept
        shutil.copytree(source, target)
        rows = pl.read_parquet(sorted((source / parts).glob("*.parquet")))
        for old in (target / parts).glob("*.parquet"):
            old.unlink()
        for number in range(3):
            rows.gather_every(3, number).head(60).write_parquet(
                target / parts / f"part-{number:05d}.parquet", row_group_size=2000
            )
        made = artefacts.read(source)
        artefacts.write(target, made)
    return folder


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stage -> the hash of the manifest that one process gives."""
    made = {stage: run(stage, inputs, tmp_path_factory.mktemp(stage), ["workers=1"]) for stage in STAGES}
    return {stage: artefacts.manifest_hash(folder) for stage, folder in made.items()}


def run(stage: str, inputs: Path, place: Path, settings: list[str], **more: str) -> Path:
    """Run a stage by its console script; the artefact's folder."""
    done = start(stage, inputs, place, settings, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "out"


def start(stage: str, inputs: Path, place: Path, settings: list[str], **more: str) -> subprocess.CompletedProcess:
    package, reads, _ = STAGES[stage]
    return subprocess.run(
        [f"headwater-{package}", stage, "--out", place / "out", "--work", place / "work"]
        + [a for name, folder in reads.items() for a in ("--in", f"{name}={inputs / folder}")]
        + [a for setting in settings for a in ("--set", setting)],
        env={**environment(), **more}, capture_output=True, text=True,
    )  # fmt: skip


def marks(stage: str, place: Path) -> Path:
    (found,) = (place / "work" / stage).glob(f"*/{STAGES[stage][2]}.tasks")
    return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_give_the_same_bytes(stage, inputs, expected, tmp_path):
    assert artefacts.manifest_hash(run(stage, inputs, tmp_path, ["workers=2"])) == expected[stage]


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory) -> Iterator[str]:
    """`ray start --head` in a process of its own; its address."""
    pytest.importorskip("ray")
    ports = free_ports(2)
    tool = Path(sys.executable).parent / "ray"
    quiet = {**environment(), "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_MEMORY_MONITOR": "1"}
    head = [tool, "start", "--head", f"--port={ports[0]}", "--num-cpus=2", "--include-dashboard=false",
             "--node-ip-address=127.0.0.1", "--memory=8000000000", "--object-store-memory=100000000",
             "--temp-dir=" + str(Path("/tmp") / f"ray-{os.getpid()}"), "--disable-usage-stats"]  # fmt: skip
    done = subprocess.run(head, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    yield f"127.0.0.1:{ports[0]}"
    subprocess.run([tool, "stop", "--force"], capture_output=True)
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_ray_cluster_gives_the_same_bytes(stage, inputs, expected, tmp_path, ray_head):
    settings = ["workers=2", "executor.kind=ray", f"executor.ray_address={ray_head}", "executor.memory_gb=1"]
    assert artefacts.manifest_hash(run(stage, inputs, tmp_path, settings)) == expected[stage]


def test_a_missing_ray_cluster_is_named(inputs, tmp_path):
    pytest.importorskip("ray")
    nowhere = f"executor.ray_address=127.0.0.1:{free_ports(1)[0]}"
    done = start("encode", inputs, tmp_path, ["executor.kind=ray", nowhere])
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "no cluster at" in done.stderr and "start one with `ray start --head`" in done.stderr


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
    of_slurm = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": places}
    subprocess.run(["mungekey", "--create", f"--keyfile={folder}/munge.key"], check=True, env=of_slurm)
    options = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--force", "--foreground", *(f"--{name}={folder}/munge.{end}" for name, end in options.items())]
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with open(folder / f"{command[0]}.out", "w") as log:
                daemons.append(subprocess.Popen(command, env=of_slurm, stdout=log, stderr=log))
            time.sleep(1)
        for _ in range(60):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, env=of_slurm)
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


SLURM = ["executor.kind=slurm", "executor.partition=short", "executor.memory_gb=1", "executor.time=00:05:00",
         "executor.poll_seconds=0.5"]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_slurm_job_array_gives_the_same_bytes(stage, inputs, expected, tmp_path, slurm):
    out = run(stage, inputs, tmp_path, ["workers=2", *SLURM], SLURM_CONF=str(slurm / "slurm.conf"))
    assert artefacts.manifest_hash(out) == expected[stage]


def test_ranks_that_srun_starts_train_to_the_same_bytes(smoke, tmp_path, slurm):
    """A batch job runs the stage, which starts two ranks as a job step."""
    inputs = [f"--in={name}={smoke / 'artefacts' / name}" for name in ("tokens", "plan", "tokenizer")]
    settings = ["steps=12", "micro_batch=8", "parallel.data=2", "threads=1", "tracking.to=[]", "checkpoint_every=6"]
    common = ["headwater-model", "pretrain", *inputs, *(f"--set={setting}" for setting in settings)]
    here = subprocess.run(
        [*common, "--out", tmp_path / "here", "--work", tmp_path / "work"],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert here.returncode == 0, here.stdout + here.stderr
    job = [*common, "--set=launch.kind=srun", "--out", str(tmp_path / "there"), "--work", str(tmp_path / "work-there")]
    (tmp_path / "job.sh").write_text("#!/bin/bash\nexec " + shlex.join(job) + "\n")
    batch = ["sbatch", "--wait", "--partition=short", "--ntasks=2", f"--output={tmp_path}/job.log", tmp_path / "job.sh"]
    done = subprocess.run(
        batch, env={**environment(), "SLURM_CONF": str(slurm / "slurm.conf")}, capture_output=True, text=True
    )
    log = (tmp_path / "job.log").read_text()
    assert done.returncode == 0, done.stderr + log
    assert "step 12: held-out loss" in log
    assert artefacts.manifest_hash(tmp_path / "there") == artefacts.manifest_hash(tmp_path / "here")


def test_shards_that_slurm_left_undone_are_named_and_the_finished_kept(inputs, tmp_path, slurm):
    bad = tmp_path / "in"
    shutil.copytree(inputs, bad)
    broken = bad / "documents" / "part-00001.parquet"
    pl.read_parquet(broken).drop("lang").write_parquet(broken, row_group_size=2000)
    artefacts.write(bad / "documents", artefacts.read(bad / "documents"))
    done = start("signals", bad, tmp_path, ["workers=2", *SLURM], SLURM_CONF=str(slurm / "slurm.conf"))
    assert done.returncode == 1 and "1 of 3 shards were not done by slurm" in done.stderr
    left = marks("signals", tmp_path)
    assert sorted(p.name for p in (left / "completions").iterdir()) == ["00000", "00002"]
    assert len(list((left / "slurm_logs").glob("*.out"))) == 2  # two jobs took the three shards
