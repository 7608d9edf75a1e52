"""The sandbox's own process: it locks itself in, runs the program, watches it, and ends with all that it started.

Standard library only, and nothing of the package: it starts in 50 ms, before any of the caller's memory is there.

    caller -> supervisor -> [new namespaces] process 1 -> the program (another user, no privileges)

Process 1 is out of the program's reach, and with it the kernel ends every process of the namespace, whatever it
did to escape. Without namespaces the supervisor itself watches, and adopts whatever the program leaves behind.

In: a JSON object on standard input (`run.Sandbox` writes it). Out: the program's output on standard output, and one
JSON object on the descriptor that argv names: {exit, signal, stopped, seconds, cpu_seconds, left_behind} or {refused}.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

from . import kernel

NOBODY = 65534
BOX = "/box"
POLL_SECONDS = 0.05
PATIENCE = 10
"""How many times its wall time a program gets that is ready to run all the while, on a machine without time for it."""
DEVICES = ("null", "zero", "full", "random", "urandom")


def main() -> None:
    """Run the program of standard input's JSON; never returns."""
    report_to = int(sys.argv[1])
    os.set_inheritable(report_to, False)
    spec = json.load(sys.stdin.buffer)
    kernel.die_with_parent()
    if os.getppid() != spec["parent"]:
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")  # where memory runs out, this goes first
    if spec["namespaces"]:
        _enter_namespaces()
        kernel.die_with_parent()  # a change of privileges may have cleared it
        child = os.fork()
        if child:
            os.close(report_to)
            os.close(1)
            os.waitpid(child, 0)  # which ends when every process of the namespace has
            os._exit(0)
        kernel.die_with_parent()
        _build_root(spec)
        os.setsid()
    else:
        kernel.adopt_orphans()
        spec["box"] = spec["folder"]
        _write_files(spec["folder"], spec["files"], give_away=spec["another_user"])
    report = _run(spec)
    os.write(report_to, json.dumps(report).encode())
    os._exit(0)


# --- the place ---


def _enter_namespaces() -> None:
    """New namespaces in which this process has every privilege and the program will be nobody.

    A kernel counts and limits the processes of a user, but never those of root: so root hands a second user in, which
    only a process outside may do.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        kernel.unshare_all()
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{NOBODY} {user} 1")
        _write("/proc/self/gid_map", f"{NOBODY} {group} 1")
        return
    ready, ready_in = os.pipe()
    supervisor = os.getpid()
    helper = os.fork()
    if not helper:
        os.close(ready_in)
        if not os.read(ready, 1):
            os._exit(1)
        both = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
        try:
            _write(f"/proc/{supervisor}/uid_map", both)
            _write(f"/proc/{supervisor}/gid_map", both)
        except OSError:
            os._exit(1)
        os._exit(0)
    kernel.unshare_all()
    os.write(ready_in, b".")
    if os.waitpid(helper, 0)[1]:
        raise OSError("no second user may be mapped into a user namespace here")
    os.close(ready)
    os.close(ready_in)


def _build_root(spec: dict[str, Any]) -> None:
    """A root of its own: the folders that it may read, a few devices, and one small writable folder in memory."""
    kernel.mounts_private()
    base = next(folder for folder in ("/sys", "/mnt") if os.path.isdir(folder))  # nothing that is shown lies there
    kernel.mount_new("tmpfs", base, kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path in spec["readable"]:
        target = base + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
        elif os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
            kernel.mount_bind(path, target)
        else:
            _write(target, "")
            kernel.mount_bind(path, target)
    os.mkdir(base + "/dev")
    for name in DEVICES:
        _write(f"{base}/dev/{name}", "")
        kernel.mount_bind(f"/dev/{name}", f"{base}/dev/{name}", read_only=False)
    os.symlink("/proc/self/fd", base + "/dev/fd")
    os.mkdir(base + "/proc")
    kernel.mount_new("proc", base + "/proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    os.mkdir(base + BOX)
    os.symlink(BOX, base + "/tmp")
    limits = spec["limits"]
    size = f"size={limits['disk_mb']}m,nr_inodes={limits['files']},mode=700,uid={NOBODY},gid={NOBODY}"
    kernel.mount_new("tmpfs", base + BOX, kernel.MS_NOSUID | kernel.MS_NODEV, size)
    _write_files(base + BOX, spec["files"], give_away=spec["another_user"])
    kernel.change_root(base)
    kernel.freeze("/")
    spec["box"] = BOX


def _write_files(folder: str, files: dict[str, str], give_away: bool) -> None:
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, text)
    if give_away:
        for parent, _, names in os.walk(folder):
            for path in (parent, *(os.path.join(parent, name) for name in names)):
                os.chown(path, NOBODY, NOBODY)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
        f.write(text)


# --- the program ---


def _run(spec: dict[str, Any]) -> dict[str, Any]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    stdin, stdin_in = os.pipe()
    os.write(stdin_in, spec["stdin"].encode()[:4096])
    os.close(stdin_in)
    failed, failed_in = os.pipe()
    watcher = os.getpid()
    program = os.fork()
    if not program:
        try:
            _become_program(spec, stdin, watcher)
        except BaseException as e:
            os.write(failed_in, str(e).encode()[:1000])
        os._exit(126)
    os.close(failed_in)
    os.close(1)
    report = _watch(program, spec)
    refused = os.read(failed, 1000).decode(errors="replace")
    return {"refused": refused} if refused else report


def _become_program(spec: dict[str, Any], stdin: int, watcher: int) -> None:
    os.setsid()
    if not spec["namespaces"]:
        kernel.die_with_parent()
        if os.getppid() != watcher:
            os._exit(1)
    os.dup2(stdin, 0)
    os.dup2(1, 2)
    os.chdir(spec["box"])
    alone = spec["namespaces"] or spec["another_user"]
    _set_limits(spec["limits"], already=0 if alone else _tasks_of_user())
    kernel.no_new_privileges()
    if spec["landlock"]:
        kernel.landlock(spec["readable"], [spec["box"], *(f"/dev/{name}" for name in DEVICES)])
    if spec["another_user"]:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    elif os.geteuid() == 0:
        kernel.drop_capabilities()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and exec would hand that on
    home = {"HOME": spec["box"], "TMPDIR": spec["box"], "PATH": "/usr/bin:/bin"}
    if spec["filter"]:
        kernel.filter_calls()
    os.execve(spec["argv"][0], spec["argv"], {**home, **spec["environment"]})  # what is open beyond 2 closes itself


def _tasks_of_user() -> int:
    """Processes and threads that the user of this one has: where no namespace counts apart, they count too."""
    total = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                total += len(os.listdir(f"/proc/{name}/task"))
    return total


def _set_limits(limits: dict[str, int], already: int) -> None:
    """setrlimit(2); the limit of processes counts threads too, and all processes of the user in this namespace."""
    megabyte = 1 << 20
    for name, value in {
        "AS": limits["memory_mb"] * megabyte,
        "CPU": limits["cpu_seconds"],
        "FSIZE": limits["disk_mb"] * megabyte,
        "NPROC": already + limits["processes"],
        "NOFILE": limits["open_files"],
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }.items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        at_most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # one second between SIGXCPU, which says why, and SIGKILL
        resource.setrlimit(number, (at_most, at_most + 1 if name == "CPU" else at_most))


# --- the watch ---


def _watch(program: int, spec: dict[str, Any]) -> dict[str, Any]:
    """Wait for the program, end it at its limits, end what it leaves behind, and say how it went."""
    limits, started = spec["limits"], time.monotonic()
    looked, idle = started, 0.0
    stopped, status = None, None
    while status is None:
        signal.sigtimedwait([signal.SIGCHLD], POLL_SECONDS)
        with contextlib.suppress(ChildProcessError):
            while status is None and (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == program:
                    status = found[1]
        if status is None and stopped is None:
            others, now = _others(spec), time.monotonic()
            idle += 0.0 if _ready(others) else now - looked
            looked = now
            if idle > limits["wall_seconds"] or now - started > PATIENCE * limits["wall_seconds"]:
                stopped = "time"
            elif _resident_bytes(others) > limits["memory_mb"] << 20:
                stopped = "memory"
            if stopped:
                _kill(others)
    seconds = time.monotonic() - started
    left_behind = _end_all(spec)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "exit": os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "stopped": stopped,
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "left_behind": left_behind,
    }


def _others(spec: dict[str, Any]) -> list[int]:
    """Every process under watch: of the namespace, or (without one) descending from this one."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if spec["namespaces"]:
        return [number for number in numbers if number != 1]
    parents = {number: _parent(number) for number in numbers}
    found = {os.getpid()}
    while more := {n for n, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def _parent(number: int) -> int:
    try:
        with open(f"/proc/{number}/stat", "rb") as f:
            return int(f.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1


def _resident_bytes(numbers: Iterable[int]) -> int:
    """Memory of these processes that no file stands behind; what a fork still shares counts twice."""
    pages = 0
    for number in numbers:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{number}/statm") as f:
            sizes = f.read().split()
            pages += int(sizes[1]) - int(sizes[2])
    return pages * resource.getpagesize()


def _ready(numbers: Iterable[int]) -> bool:
    """Whether any of these processes runs or would run if the machine had time for it (proc(5), state R)."""
    for number in numbers:
        with contextlib.suppress(OSError), open(f"/proc/{number}/stat", "rb") as f:
            if f.read().rpartition(b")")[2].split()[:1] == [b"R"]:
                return True
    return False


def _kill(numbers: Iterable[int]) -> None:
    for number in numbers:
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)


def _end_all(spec: dict[str, Any]) -> int:
    """End what is left, again and again until nothing is; how many there were at first."""
    left_behind = None
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        others = _others(spec)
        left_behind = len(others) if left_behind is None else left_behind
        if not others:
            return left_behind
        if spec["namespaces"] and os.getpid() == 1:
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)  # all of the namespace at once, so no fork gets away
        else:
            _kill(others)
        time.sleep(0.002)
