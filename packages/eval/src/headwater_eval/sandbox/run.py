"""Untrusted programs, run so that they can neither harm nor outlive nor spy on the machine: `Sandbox.run`.

| protection | by | where the kernel allows no namespaces |
| --- | --- | --- |
| network | an empty network namespace, and no socket() | the filter refuses socket() |
| files | a root of its own: interpreter and system read-only, one folder in memory | Landlock; names stay visible |
| disk | that folder's size and number of files | missing: only the size of one file |
| processes | a process namespace: sees and signals no other, and all end with it | missing: orphans adopted, ended |
| user | a user without privileges, whose processes are counted apart | where root can run as nobody |
| calls | a filter: no hidden memory, namespaces, tracing, keys | the same |

Always: limits of CPU time, wall time, memory, file size, open files; an environment of five variables; output cut;
no shell. A protection that this machine cannot give is an error that names it, unless the caller accepts that.

Not covered: a fault in the kernel, and what timing and the machine's own description (/proc/cpuinfo) tell.
Memory of all processes together is watched (every 50 ms), not limited by the kernel: that takes a cgroup.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .._contracts.errors import UserError
from . import kernel
from .jail import PATIENCE

PROTECTIONS = ("network", "files", "disk", "processes", "user", "calls")
PYTHON = os.path.realpath(sys.executable)
"""The interpreter itself, not a virtual environment's link to it: the program gets the standard library alone."""
PYTHON_OPTIONS = ("-P", "-s", "-S", "-B")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache")
_GRACE_SECONDS = 120
"""Beyond all the time that a program may get; the supervisor itself needs a tenth of a second."""
_START = "import sys; sys.path.append(sys.argv.pop(1)); from {package} import jail; jail.main()"


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    wall_seconds: int = 20
    """In which it sleeps or waits. While it is ready to run CPU time counts, and ten times this at most: what else the
    machine has to do must not decide what is right."""
    cpu_seconds: int = 5
    """Of one process."""
    memory_mb: int = 512
    """Address space of one process, and resident memory of all together."""
    disk_mb: int = 16
    files: int = 1000
    """In its folder."""
    processes: int = 32
    """Threads count."""
    open_files: int = 64
    output_bytes: int = 65_536
    """What is kept of its output; the rest is read and thrown away."""


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    exit: int | None
    """Its exit status; None where a signal ended it."""
    signal: int | None
    stopped: str | None
    """Why the sandbox ended it: `time` or `memory`; None where it ended by itself or at a limit of its process."""
    output: str
    """Standard output and error, in the order written, as UTF-8."""
    output_bytes: int
    """All that it wrote."""
    seconds: float
    cpu_seconds: float
    left_behind: int
    """Processes that it had started and that were still there when it ended."""

    @property
    def out_of_time(self) -> bool:
        """Whether wall time or CPU time ended it."""
        return self.stopped == "time" or self.signal == signal.SIGXCPU


@dataclass(frozen=True)
class Sandbox:
    """Where programs run.

    Args:
        accept: protections that may be missing here; any other that is missing is an error.
        readable: files and folders beside interpreter and system that a program may read (a compiler's settings).
        namespaces: try them; False is how the fallback is tested.
    """

    limits: Limits = field(default_factory=Limits)
    accept: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    namespaces: bool = True

    def run(
        self,
        argv: Sequence[str],
        files: Mapping[str, str] | None = None,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run argv[0] (a path) in a fresh folder that holds `files` (name -> text), which is gone afterwards.

        Args:
            stdin: at most 4,096 bytes.
            environment: beside HOME, TMPDIR and PATH.

        Raises:
            UserError: a protection is missing that is not accepted, or the program cannot be started.
        """
        self.require()
        plan = _plan(self.readable, self.namespaces)
        if plan["namespaces"]:
            return self._start(plan, argv, files or {}, stdin, environment or {})
        with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder:
            return self._start({**plan, "folder": folder}, argv, files or {}, stdin, environment or {})

    @property
    def missing(self) -> dict[str, str]:
        """Protections that this machine does not give, with the reason; found by trying."""
        return _plan(self.readable, self.namespaces)["missing"]

    def require(self) -> None:
        """Refuse to run with fewer protections than asked for.

        Raises:
            UserError: one line that names what is missing, why, and how to accept it.
        """
        refused = [name for name in PROTECTIONS if name in self.missing and name not in self.accept]
        if refused:
            raise UserError(
                f"the sandbox cannot protect {', '.join(refused)} on this machine ({self.missing[refused[0]]}); "
                f"run elsewhere, or accept it: code.accept: [{', '.join(refused)}]"
            )

    def _start(
        self,
        plan: dict[str, Any],
        argv: Sequence[str],
        files: Mapping[str, str],
        stdin: str,
        environment: Mapping[str, str],
    ) -> Result:
        spec = {
            **{key: value for key, value in plan.items() if key != "missing"},
            "argv": list(argv),
            "files": dict(files),
            "stdin": stdin,
            "environment": {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", **environment},
            "limits": asdict(self.limits),
            "parent": os.getpid(),
        }
        here = Path(__file__).parent
        report, report_in = os.pipe()
        supervisor = subprocess.Popen(
            [PYTHON, "-E", *PYTHON_OPTIONS, "-c", _START.format(package=here.name), str(here.parent), str(report_in)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=[report_in],
        )
        os.close(report_in)
        try:
            text = json.dumps(spec).encode()
            kept, total = self._talk(supervisor, report, text)
        finally:
            os.killpg(supervisor.pid, signal.SIGKILL)  # not yet waited for, so the number is still its own
            supervisor.wait()
            for pipe in (supervisor.stdin, supervisor.stdout, supervisor.stderr):
                assert pipe is not None
                pipe.close()
            os.close(report)
        if not kept["report"]:
            said = kept["error"].decode(errors="replace").strip().rpartition("\n")[2]
            if total["late"]:  # no fault of the program's, so no verdict on it
                raise UserError("the sandbox did not answer; is this machine overloaded? Run again with fewer workers")
            raise UserError(said or "the sandbox ended before its program")
        told = json.loads(kept["report"])
        if "refused" in told:
            raise UserError(f"the sandbox could not start {argv[0]}: {told['refused']}")
        return Result(output=_text(kept["output"]), output_bytes=total["output"], **told)

    def _talk(
        self, supervisor: subprocess.Popen, report: int, text: bytes
    ) -> tuple[dict[str, bytearray], dict[str, int]]:
        """Hand the program over and read what comes back, until every end is closed or the time is long over."""
        assert supervisor.stdin and supervisor.stdout and supervisor.stderr
        try:
            supervisor.stdin.write(text)
            supervisor.stdin.close()
        except BrokenPipeError:
            pass  # it says why on standard error
        ends = {supervisor.stdout.fileno(): "output", supervisor.stderr.fileno(): "error", report: "report"}
        kept = {name: bytearray() for name in ends.values()}
        total = {"output": 0, "error": 0, "report": 0, "late": 0}
        deadline = time.monotonic() + PATIENCE * self.limits.wall_seconds + _GRACE_SECONDS
        with selectors.DefaultSelector() as selector:
            for end in ends:
                selector.register(end, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    total["late"] = 1
                    break
                for key, _ in ready:
                    data, name = os.read(key.fd, 65_536), ends[key.fd]
                    if not data:
                        selector.unregister(key.fd)
                    total[name] += len(data)
                    kept[name] += data[: max(0, self.limits.output_bytes - len(kept[name]))]
        return kept, total


@cache
def _plan(readable: tuple[str, ...], namespaces: bool) -> dict[str, Any]:
    """What this machine allows, tried out once with a program that does nothing."""
    if not sys.platform.startswith("linux"):
        return {"missing": dict.fromkeys(PROTECTIONS, "it needs Linux"), "namespaces": False}
    root = os.geteuid() == 0
    folders = [path for path in (*SYSTEM, *readable) if os.path.lexists(path)]
    if not any(Path(sys.base_prefix).is_relative_to(folder) for folder in folders):
        folders.append(sys.base_prefix)
    plan: dict[str, Any] = {"readable": folders, "landlock": False, "filter": True, "another_user": root}
    plan["filter"], no_filter = _works({**plan, "namespaces": False, "another_user": False})
    missing = {} if plan["filter"] else {"calls": no_filter}
    reason = "namespaces are switched off"
    if namespaces:
        works, reason = _works({**plan, "namespaces": True})
        if works:
            return {**plan, "namespaces": True, "missing": missing}
    plan |= {"namespaces": False, "landlock": kernel.landlock_abi() > 0}
    missing |= {"disk": reason, "processes": reason}
    if "calls" in missing:
        missing["network"] = reason
    if not plan["landlock"]:
        missing["files"] = f"{reason}, and there is no Landlock"
    plan["another_user"] = root and _works(plan)[0]
    if not plan["another_user"]:
        missing["user"] = f"{reason}, and another user than root cannot run {PYTHON}" if root else reason
    return {**plan, "missing": missing}


def _works(plan: dict[str, Any]) -> tuple[bool, str]:
    nothing = (PYTHON, *PYTHON_OPTIONS, "-c", "pass")
    try:
        with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
            result = Sandbox(Limits(wall_seconds=60))._start({**plan, "folder": folder}, nothing, {}, "", {})
    except UserError as e:
        return False, str(e)
    return result.exit == 0, f"a program that does nothing ended with {result.exit or result.signal}"


def _text(data: bytes | bytearray) -> str:
    return bytes(data).decode("utf-8", "replace")
