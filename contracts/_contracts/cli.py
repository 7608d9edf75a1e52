"""One console script a package, one sub-command a stage: a thin shell over plain functions."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import manifest as artefacts
from .config import defaults, load_section, override, parse, resolved
from .errors import UsageError
from .stage import Stage, execute, fingerprint


@dataclass(frozen=True)
class Command:
    """A sub-command that is no stage: it makes no artefact (generate, chat)."""

    name: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: str
    """`module:function`, called with the parsed arguments; its return value is the exit code (None: 0)."""


def main(
    package: str, version: str, stages: Sequence[Stage], commands: Sequence[Command] = (), argv: list[str] | None = None
) -> int:
    """Parse, run, and turn every user's error into one line and exit code 1 or 2."""
    parser = _parser(package, version, stages, commands)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if isinstance(args.what, Stage):
            return _run_stage(args.what, package, version, args)
        module, _, function = args.what.run.partition(":")
        return getattr(importlib.import_module(module), function)(args) or 0
    except KeyboardInterrupt:
        print(f"{package}: interrupted; run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as e:
        if not hasattr(e, "exit_code") or os.environ.get("HEADWATER_DEBUG"):
            raise  # a fault of ours, or a developer who wants the traceback
        print(f"{package} {args.command}: {' '.join(str(e).split())}", file=sys.stderr)
        return e.exit_code


def spelled_out(argv: list[str], word: str) -> list[str]:
    """`WORD export ...` -> `WORD-export ...`, import likewise; the files after `WORD import` -> `--set files=[...]`."""
    if len(argv) < 2 or argv[0] != word or argv[1] not in ("export", "import"):
        return argv
    options, files = argv[2:], []
    if argv[1] == "import":
        while options and not options[0].startswith("-"):
            files.append(options.pop(0))
    named = ["--set", f"files={json.dumps(files)}"] if files else []
    return [f"{word}-{argv[1]}", *options, *named]


def _run_stage(stage: Stage, package: str, version: str, args: argparse.Namespace) -> int:
    section = stage.section or stage.name
    if args.params:
        values = load_section(args.params, section, args.scale, args.set)
    elif args.scale:
        raise UsageError("--scale needs --params: presets lie in the folder configs beside params.yaml")
    else:
        values = override(defaults(stage.config), args.set)
    config = parse(stage.config, values, section)
    inputs = _inputs(stage, args.inputs)
    if args.dry_run:
        hashes = {name: artefacts.manifest_hash(path) for name, path in inputs.items()}
        mark = fingerprint(stage, package, version, config, hashes)
        print(artefacts.canonical_json({"stage": stage.name, "fingerprint": mark, "config": resolved(config)}), end="")
        return 0
    if args.out is None:
        raise UsageError("--out DIR is needed: where the artefact shall be")
    execute(stage, package, version, config, inputs, args.out, args.work, args.record)
    return 0


def _inputs(stage: Stage, given: list[str]) -> dict[str, Path]:
    """`--in NAME=DIR`, or plain `--in DIR` where the stage has one input."""
    names = {name.removesuffix("?"): name for name in stage.reads if name != "*"}
    inputs: dict[str, Path] = {}
    for item in given:
        name, equals, path = item.partition("=")
        if not equals or (name not in names and "*" not in stage.reads):
            if len(stage.reads) != 1 or "*" in stage.reads:
                more = [f"any {' or '.join(stage.reads['*'])}"] if "*" in stage.reads else []
                raise UsageError(
                    f"--in {item}: write NAME=DIR; {stage.name} reads {', '.join([*names, *more]) or 'nothing'}"
                )
            name, path = next(iter(names)), item
        if name in inputs:
            raise UsageError(f"--in {item}: {name} is given twice")
        inputs[name] = Path(path)
    missing = [name for name, declared in names.items() if name not in inputs and not declared.endswith("?")]
    if missing:
        raise UsageError(f"--in {missing[0]}=DIR is needed: {' or '.join(stage.reads[missing[0]])}")
    return inputs


def _parser(
    package: str, version: str, stages: Sequence[Stage], commands: Sequence[Command]
) -> argparse.ArgumentParser:
    about = importlib.import_module(package.replace("-", "_")).__doc__
    raw = argparse.RawDescriptionHelpFormatter  # --version in one line, for scripts
    parser = argparse.ArgumentParser(package, description=about, formatter_class=raw)
    contract = ", ".join(f"{kind} {number}" for kind, number in artefacts.SCHEMAS.items())
    parser.add_argument("--version", action="version", version=f"{package} {version} (schemas: {contract})")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage in stages:
        reads = "; ".join(_described(name, kinds) for name, kinds in stage.reads.items())
        about = f"{stage.summary}\n\nreads:  {reads or 'no artefact'}\nwrites: {stage.writes}\ncosts:  {stage.cost}"
        sub = subparsers.add_parser(
            stage.name, help=stage.summary, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        sub.set_defaults(what=stage)
        sub.add_argument("--params", type=Path, metavar="FILE", help="params.yaml; presets lie in configs/ beside it")
        sub.add_argument("--scale", metavar="NAME", help="preset configs/NAME.yaml (default: `scale` in the params)")
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one parameter")
        sub.add_argument("--in", dest="inputs", action="append", default=[], metavar="NAME=DIR", help="an input")
        sub.add_argument("--out", type=Path, metavar="DIR", help="where the artefact shall be")
        sub.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="progress (default: work)")
        sub.add_argument("--record", type=Path, metavar="FILE", help="write time and memory used as JSON")
        sub.add_argument("--dry-run", action="store_true", help="print the resolved config and its fingerprint")
    for command in commands:
        sub = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        sub.set_defaults(what=command)
        command.arguments(sub)
    return parser


def _described(name: str, kinds: tuple[str, ...]) -> str:
    if name == "*":
        return f"any number of {' or '.join(kinds)}, each as NAME=DIR"
    return f"{name.removesuffix('?')} ({' or '.join(kinds)}{', optional' if name.endswith('?') else ''})"


def _terminate(*_: object) -> None:
    """SIGTERM unwinds the stack like Ctrl-C, so that files are closed and locks dropped."""
    raise SystemExit(143)
