"""Real signals, real processes, a real full disk: what is left is the old artefact, or the whole new one."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater_data._contracts import manifest


@pytest.fixture
def start(command, environment, tmp_path):
    """Start the stage, a text each `pause_s` seconds, and wait until it has counted `texts` of ten."""
    started = []

    def begin(pause_s: float, texts: int = 1) -> subprocess.Popen:
        process = subprocess.Popen(command(), env=environment(COUNTING_PAUSE_S=str(pause_s)))
        started.append(process)
        wait_until(lambda: len(list(tmp_path.glob("work/count/*/text-*.json"))) >= texts)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_until(true, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def stage_pid(work: Path) -> int:
    return int(next(work.glob("count/*/lock")).read_text())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_killed_and_resumed_gives_the_bytes_of_an_uninterrupted_run_without_starting_again(start, count, tmp_path):
    start(pause_s=0.05, texts=3).kill()
    assert not (tmp_path / "out").exists()
    second = count()
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("was counted before") >= 3 and second.stdout.count(" counted\n") <= 7
    assert count(out=tmp_path / "fresh", work=tmp_path / "fresh work").returncode == 0
    for path in (tmp_path / "fresh").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_a_stage_killed_over_and_over_still_ends_with_the_same_bytes(start, count, tmp_path):
    assert count(out=tmp_path / "fresh", work=tmp_path / "fresh work").returncode == 0
    for delay in (0.0, 0.06, 0.12):
        process = start(pause_s=0.15)
        time.sleep(delay)
        process.kill()
        process.wait()
    assert count().returncode == 0
    assert manifest.manifest_hash(tmp_path / "out") == manifest.manifest_hash(tmp_path / "fresh")


def test_a_second_process_on_the_same_work_is_refused_in_one_line(start, count, tmp_path):
    first = start(pause_s=2)
    second = count()
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1 and f"is in use by process {first.pid}" in second.stderr
    assert first.poll() is None
    assert count("--set", "minimum_length=2", out=tmp_path / "other").returncode == 0  # other work is free


def test_the_lock_is_free_as_soon_as_its_holder_is_killed(start, count):
    first = start(pause_s=30)
    first.kill()
    first.wait()
    assert count().returncode == 0


def test_sigterm_ends_the_stage_at_once_and_leaves_nothing_published(start, tmp_path):
    process = start(pause_s=30)
    process.terminate()
    assert process.wait(20) == 143
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shell", ["exec {stage}", "{stage}; true"], ids=["shell gone", "shell between"])
def test_a_stage_ends_when_the_dvc_that_started_it_is_killed(command, environment, tmp_path, shell):
    """DVC starts a stage through a shell with DVC_STAGE set; a plain sh stays between the two."""
    line = shell.format(stage=" ".join(command()))
    dvc = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1], shell=True)", line],
        env=environment(COUNTING_PAUSE_S="30", DVC_STAGE="count"),
    )
    wait_until(lambda: list(tmp_path.glob("work/count/*/text-*.json")))
    pid = stage_pid(tmp_path / "work")
    assert alive(pid) and pid != dvc.pid
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait()
    wait_until(lambda: not alive(pid), timeout_s=20)
    assert not (tmp_path / "out").exists()


def test_a_stage_started_by_hand_outlives_its_shell(command, environment, tmp_path):
    shell = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1], shell=True)", " ".join(command())],
        env=environment(COUNTING_PAUSE_S="0.1"),
    )
    wait_until(lambda: list(tmp_path.glob("work/count/*/text-*.json")))
    shell.kill()
    shell.wait()
    wait_until((tmp_path / "out").exists)
    manifest.verify(tmp_path / "out")


@contextmanager
def small_disk(folder: Path):
    """A file system of 2 MB, for those who may mount one."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a small disk here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("by", ["python", "numpy", "polars"])
def test_a_full_disk_is_one_line_and_nothing_is_published_until_there_is_space(count, tmp_path, by):
    with small_disk(tmp_path / "disk") as disk:
        places = {"out": disk / "out", "work": disk / "work"}
        (disk / "other people's").write_bytes(bytes(1_000_000))
        options = ["--set", "ballast.bytes=1200000", "--set", f"ballast.by={by}"]
        done = count(*options, **places)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert f"the disk that holds {disk}" in done.stderr and "is full" in done.stderr
        assert not places["out"].exists()
        (disk / "other people's").unlink()
        again = count(*options, **places)
        assert again.returncode == 0, again.stderr
        assert "was counted before" in again.stdout
        manifest.verify(places["out"])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_full_from_the_start_is_one_line(count, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(OSError):
            (disk / "other people's").write_bytes(bytes(4_000_000))
        done = count(out=disk / "out", work=disk / "work")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "is full; free space and run again" in done.stderr


def test_a_file_size_limit_is_one_line_and_nothing_is_published(command, environment, tmp_path):
    done = subprocess.run(
        command("--set", "ballast.bytes=300000"),
        env=environment(), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "File too large" in done.stderr and "nothing was published" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_may_not_be_written_is_one_line(count, tmp_path):
    (tmp_path / "file").write_text("")
    done = count(work=tmp_path / "file" / "work")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert str(tmp_path / "file") in done.stderr
