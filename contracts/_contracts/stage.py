"""How a stage runs, the same for every stage of every package.

    end when DVC ends -> verify the inputs -> fingerprint -> lock the work folder
    -> run into work/STAGE/FINGERPRINT/out -> manifest -> publish -> record

The fingerprint hashes the resolved config, the inputs' manifests and the code that runs, and no path:
work of another config, input or code is never resumed. `run.work` keeps a long stage's progress across
kills; `run.out` starts empty at each attempt unless it is already complete, in which case it is
published again without work (DVC deletes outputs before a run, and may be killed before it hashes them).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from . import manifest as artefacts
from .config import Config, resolved
from .errors import UsageError, UserError
from .manifest import ArtefactError, Manifest


@dataclass(frozen=True)
class Stage:
    """One step of the lineage, declared once: the command line, `--help` and `execute` follow from it."""

    name: str
    summary: str
    """One sentence, in the imperative."""
    reads: dict[str, tuple[str, ...]]
    """Input name -> the kinds accepted. A name that ends in `?` may be absent; `*` stands for any number of further
    ones, under names that the user gives."""
    writes: str
    """Kind of the output artefact."""
    cost: str
    """What a user should expect of time, memory or network."""
    config: type[Config]
    run: str
    """`module:function`, imported only when the stage runs. Called with a `Run`."""
    code: tuple[str, ...] = ()
    """Other packages whose code decides the result, beside the one that declares the stage; one that ends in `?` only
    where it is installed."""
    section: str = ""
    """Section of the params; the stage's name if empty."""
    reuse: bool = True
    """Whether complete work is published again instead of made again; not where a stage also reads what no
    manifest covers (the report: run records)."""


@dataclass
class Run:
    """What a running stage has in hand."""

    stage: Stage
    config: Any
    inputs: dict[str, Path]
    """Input name -> verified artefact folder."""
    work: Path
    """Progress of this fingerprint; survives kills; the stage's own business."""
    out: Path
    """The artefact in the making: empty at the start, published whole."""
    fingerprint: str
    manifests: dict[str, Manifest] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    """What differs from run to run (speeds): goes into the record of the run, never into the artefact."""
    _last: float = 0.0

    def log(self, text: str) -> None:
        """One line of progress. Never document text: names, counts and ids only."""
        print(f"[{self.stage.name}] {text}", flush=True)

    def progress(self, text: str, every: float = 5.0) -> None:
        """Like `log`, at most once in `every` seconds; on a terminal, in place."""
        now = time.monotonic()
        if sys.stdout.isatty():
            print(f"\r\033[K[{self.stage.name}] {text}", end="", flush=True)
        elif now - self._last >= every:
            self._last = now
            self.log(text)

    def write_metrics(self, metrics: dict) -> None:
        """Write `metrics.json` beside the output's other files; DVC and the report read it."""
        artefacts.write_atomic(self.out / "metrics.json", artefacts.canonical_json(metrics))


def execute(
    stage: Stage,
    package: str,
    version: str,
    config: Config,
    inputs: dict[str, Path],
    out: Path,
    work_root: Path,
    record: Path | None = None,
) -> Manifest:
    """Run one stage and publish its artefact at `out`.

    Args:
        package: distribution name; the import package is the same with an underscore.
        inputs: input name -> artefact folder.
        work_root: progress lives in `work_root/STAGE/FINGERPRINT`.
        record: JSON file for what the run cost (wall and CPU seconds, peak memory); not part of the
            artefact, since it differs from run to run.

    Raises:
        UserError: an input fails verification, another process holds the work folder, the disk is full.
    """
    die_with_dvc()
    try:
        return _execute(stage, package, version, config, inputs, Path(out), Path(work_root), record)
    except (UserError, BrokenPipeError):
        raise
    except Exception as e:
        if _is_disk_full(e, Path(work_root)):
            place = getattr(e, "filename", None) or work_root
            raise explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)), stage.name) from e
        if isinstance(e, OSError):
            raise explain_os_error(e, stage.name) from e
        raise


def _execute(
    stage: Stage,
    package: str,
    version: str,
    config: Config,
    inputs: dict[str, Path],
    out: Path,
    work_root: Path,
    record: Path | None,
) -> Manifest:
    started = time.monotonic()
    refuse_target(out, inputs)
    manifests = {name: artefacts.verify(path, kinds_of(stage, name)) for name, path in inputs.items()}
    hashes = {name: artefacts.manifest_hash(path) for name, path in inputs.items()}
    mark = fingerprint(stage, package, version, config, hashes)
    work = work_root / stage.name / mark
    work.mkdir(parents=True, exist_ok=True)
    with lock(work / "lock"):
        run = Run(stage, config, inputs, work, work / "out", mark, manifests)
        costs = _read_costs(work)
        try:
            made = _complete(run.out) if stage.reuse else None
            if made is None:
                shutil.rmtree(run.out, ignore_errors=True)
                run.out.mkdir()
                _load(stage.run)(run)
                made = artefacts.write(
                    run.out,
                    Manifest(
                        stage.writes, artefacts.SCHEMAS[stage.writes], package, version, stage.name,
                        resolved(config), hashes,
                    ),
                )  # fmt: skip
            else:
                run.log("this work is complete already: publishing it again")
            publish(run.out, out)
        finally:
            costs.append(_cost_since(started) | ({"measured": run.measured} if run.measured else {}))
            _write_costs(work, costs)
        _forget_progress(work)
        _forget_finished(work)
    if record is not None:
        total = {key: sum(c[key] for c in costs) for key in ("wall_s", "cpu_s")}
        peak = max(c["peak_rss_mb"] for c in costs)
        line = {"stage": stage.name, "package": package, "version": version, "attempts": len(costs)}
        measured = {key: value for c in costs for key, value in c.get("measured", {}).items()}
        line |= {**total, "peak_rss_mb": peak, **({"measured": measured} if measured else {})}
        artefacts.write_atomic(record, artefacts.canonical_json(line))
    return made


def refuse_target(out: Path, inputs: dict[str, Path]) -> None:
    """Publishing replaces the folder `out`: refuse one that is no artefact of ours, or that holds or is an input.

    Raises:
        UsageError: before anything was started.
    """
    if out.exists() and not (out / artefacts.NAME).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}: there already, and no artefact; remove it or name another folder")
    target = out.resolve()
    for name, path in inputs.items():
        source = path.resolve()
        if target.is_relative_to(source) or source.is_relative_to(target):
            raise UsageError(f"--out {out}: would overwrite the input {name} ({path}); name another folder")


def fingerprint(stage: Stage, package: str, version: str, config: Config, hashes: dict[str, str]) -> str:
    """12 hex digits that name the work: config, inputs and code; no machine path, host or time."""
    own = package.replace("-", "_")
    others = [name.removesuffix("?") for name in stage.code if not name.endswith("?") or find_spec(name[:-1])]
    identity = {
        "stage": stage.name,
        "package": [package, version],
        "config": resolved(config),
        "inputs": hashes,
        "code": {name: code_hash(name) for name in (own, *others)},
    }
    return hashlib.sha256(artefacts.canonical_json(identity).encode()).hexdigest()[:12]


def code_hash(package: str) -> str:
    """sha256 over the files of an importable package (sources, templates, tables), by relative path and content.

    Raises:
        UserError: the package is not installed (an engine that a stage names in `code` is no dependency).
    """
    try:
        folder = Path(str(import_module(package).__file__)).parent
    except ModuleNotFoundError as e:
        if e.name != package:
            raise
        name = package.replace("_", "-")
        raise UserError(f"{name} is needed by this stage and not installed; install it beside this package") from None
    digest = hashlib.sha256()
    # Links are followed: the contract is one in a checkout and a folder in a wheel, and is code that runs.
    walk = os.walk(folder, followlinks=True)
    files = (Path(root) / name for root, _, names in walk if Path(root).name != "__pycache__" for name in names)
    for path in sorted(file for file in files if not file.name.startswith(".")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def publish(made: Path, out: Path) -> None:
    """Put a complete artefact at `out`: link beside (copy across file systems), then rename.

    A reader of `out` finds the old artefact, none, or the new one, never a mixture; on failure the old one
    stays. Two runs that publish to the same place take turns. Symlinks are not followed out of `made`;
    artefacts hold plain files only.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    parent = os.open(out.parent, os.O_RDONLY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(made, beside, copy_function=_link_or_copy)
        artefacts.fsync(beside)
        if out.exists():
            os.rename(out, old)
        try:
            os.rename(beside, out)
        except BaseException:
            if old.exists():
                os.rename(old, out)
            raise
        os.fsync(parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        os.close(parent)


class lock:  # noqa: N801  (reads as a verb: with lock(path))
    """One writer: an exclusive flock that the kernel drops when the process ends, however it ends."""

    def __init__(self, path: Path):
        self.path = path
        self.file: TextIO | None = None

    def __enter__(self) -> lock:
        self.file = open(self.path, "a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            holder = self.file.read().strip() or "unknown"
            self.file.close()
            raise UserError(
                f"{self.path.parent} is in use by process {holder}; wait for it, or stop it and run again"
            ) from None
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.file is not None
        self.file.close()


def die_with_dvc(grace_s: float = 30.0) -> None:
    """When DVC started this process, end with it, however DVC ends: SIGTERM, and SIGKILL after `grace_s`.

    DVC killed by -9 leaves its child running, and the next `dvc repro` would start a second one. The kernel's
    own parent-death signal is not enough: DVC runs a stage through $SHELL -c, and a plain sh stays between
    the two as the parent. So a thread waits on DVC's pidfd (Linux). A stage started by hand is left alone:
    it may outlive its shell on purpose (nohup, tmux).
    """
    if "DVC_STAGE" not in os.environ or not hasattr(os, "pidfd_open"):
        return
    pid = os.getppid()
    while _process(pid)[0] in _SHELLS:
        pid = _process(pid)[1]
    if pid == 1 and os.getppid() != 1:
        raise UserError("the dvc process that started this stage is gone; run dvc repro again")
    dvc = os.pidfd_open(pid)

    def wait() -> None:
        select.select([dvc], [], [])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="die-with-dvc", daemon=True).start()


_SHELLS = {"sh", "bash", "dash", "zsh", "ash", "ksh", "fish", "busybox"}


def _process(pid: int) -> tuple[str, int]:
    """A process's name and parent, from /proc; ("", 1) for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 1
    name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :]
    return name, int(rest.split()[1])


def explain_os_error(error: OSError, stage: str) -> UserError:
    """A full disk and its like as one line."""
    where = error.filename or "the work or output folder"
    if error.errno in _DISK_FULL:
        return UserError(f"{stage}: the disk that holds {where} is full; free space and run again: nothing was lost")
    return UserError(f"{stage}: {where}: {error.strerror or error}; mend it and run again: nothing was published")


def _is_disk_full(error: BaseException, work: Path) -> bool:
    """Whether a full disk is behind an error. Libraries rarely say so: tokenizers and polars wrap the system's
    words in their own exceptions, numpy counts the bytes that are missing, torch names a wrong position."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in _DISK_FULL or any(os.strerror(number) in str(seen) for number in _DISK_FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    system_said = getattr(error, "errno", None) is not None
    return not system_said and work.exists() and shutil.disk_usage(work).free < 1 << 16


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def kinds_of(stage: Stage, name: str) -> tuple[str, ...]:
    """The kinds that a stage accepts for one of its inputs."""
    return stage.reads.get(name) or stage.reads.get(f"{name}?") or stage.reads["*"]


def _complete(out: Path) -> Manifest | None:
    if not (out / artefacts.NAME).exists():
        return None
    try:
        return artefacts.verify(out)
    except ArtefactError:
        return None


def _forget_progress(work: Path) -> None:
    """The artefact is published: of the work, only the finished artefact, its costs and the lock are kept."""
    for path in work.iterdir():
        if path.name not in ("out", "costs.json", "lock"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _forget_finished(work: Path) -> None:
    """Keep unfinished work and the newest finished one of a stage; drop older finished ones.

    Two packages may have a stage of one name (compare, card): each leaves the other's work alone.
    """
    package = artefacts.read(work / "out").package
    for other in work.parent.iterdir():
        if other != work and (other / "out" / artefacts.NAME).exists():
            try:
                if artefacts.read(other / "out").package != package:
                    continue
                with lock(other / "lock"):
                    shutil.rmtree(other, ignore_errors=True)
            except (UserError, OSError):
                continue


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        artefacts.fsync(Path(target))


def _load(where: str) -> Callable[[Run], None]:
    module, _, function = where.partition(":")
    return getattr(import_module(module), function)


def _cost_since(started: float) -> dict:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": time.monotonic() - started,
        "cpu_s": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "peak_rss_mb": max(own.ru_maxrss, children.ru_maxrss) / 1024,  # Linux counts kilobytes
    }


def _read_costs(work: Path) -> list[dict]:
    path = work / "costs.json"
    return json.loads(path.read_text()) if path.exists() else []


def _write_costs(work: Path, costs: list[dict]) -> None:
    with contextlib.suppress(OSError):  # a full disk must not hide the error that is already on its way
        artefacts.write_atomic(work / "costs.json", artefacts.canonical_json(costs))
