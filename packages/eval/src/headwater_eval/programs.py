"""Whether a program passes its tests, found by running it in the sandbox, and one line that says why it does not."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ._contracts.errors import UserError
from .sandbox.run import PYTHON, PYTHON_OPTIONS, Limits, Result, Sandbox

OUTCOMES = ("passed", "wrong", "error", "compile", "timeout", "memory", "ended")
"""wrong: a test failed; error: it raised something else; compile: the compiler refused it; ended: it left or was killed
before its tests were over."""


@dataclass(frozen=True)
class Verdict:
    """What became of one program."""

    outcome: str
    """One of OUTCOMES."""
    detail: str = ""
    """A few words: the exception's type, the signal, how many tests passed. Never what the program printed."""

    @property
    def line(self) -> str:
        """Both, for people."""
        return f"{self.outcome}: {self.detail}" if self.detail else self.outcome


# It takes a word from its input that the program cannot have, hides its own output, and says the word with the result:
# a program that merely exits with 0 has not passed. (One that searched the memory of its own process could still forge
# it.) The program is a module of its own, not __main__: as in the authors' harness, its `if __name__` blocks don't run.
_RUNNER = """
import json, os, sys, types
word, told, null = input(), os.dup(1), os.open(os.devnull, os.O_RDWR)
for end in (0, 1, 2):
    os.dup2(null, end)
with open("program.py", encoding="utf-8", errors="surrogateescape") as f:
    text = f.read()
module = types.ModuleType("program")
sys.modules["program"] = module
try:
    exec(compile(text, "program.py", "exec"), module.__dict__)
    result = ["passed", ""]
except AssertionError as e:
    result = ["wrong", type(e).__name__]
except BaseException as e:
    result = ["error", type(e).__name__]
os.write(told, (word + json.dumps(result)).encode())
os._exit(0)
"""


def check_python(sandbox: Sandbox, program: str) -> Verdict:
    """Whether a program whose last lines are its tests (assertions) runs to its end.

    It may use the standard library.

    Raises:
        UserError: see `Sandbox.run`.
    """
    word = secrets.token_hex(16)
    files = {"run.py": _RUNNER, "program.py": _encodable(program)}
    result = sandbox.run([PYTHON, *PYTHON_OPTIONS, "run.py"], files, stdin=word + "\n")
    if result.output.startswith(word):
        outcome, detail = json.loads(result.output.removeprefix(word))
        return Verdict(outcome, _short(detail))
    return _unfinished(result)


@dataclass(frozen=True)
class Toolchain:
    """How a test script of a language is compiled and run."""

    file: str
    """Its name; `{name}` is the script's class, where the language wants that."""
    compiler: str
    """The program that must be on the machine; empty: none."""
    compile: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    limits: Limits = Limits()
    settings: str = ""
    """Glob of what the compiler reads beside the system folders."""
    also: tuple[tuple[str, str], ...] = ()
    """Files beside the script: name, text."""


_JAVA = ("-Xmx512m", "-Xss8m", "-XX:+UseSerialGC", "-XX:CompressedClassSpaceSize=64m", "-XX:ReservedCodeCacheSize=64m",
         "-XX:TieredStopAtLevel=1")  # fmt: skip
# The authors' scripts import it; Java has had no JavaFX since version 11.
_PAIR = """package javafx.util;
public class Pair<K, V> {
    private final K key;
    private final V value;
    public Pair(K key, V value) { this.key = key; this.value = value; }
    public K getKey() { return key; }
    public V getValue() { return value; }
}
"""
_PYTHON = Limits(cpu_seconds=10, output_bytes=1 << 20)
_CPP = Limits(120, 30, memory_mb=1024, disk_mb=64, processes=64, open_files=256, output_bytes=1 << 20)
_JVM = replace(_CPP, memory_mb=3072)  # address space that it reserves; -Xmx is what it fills
TOOLCHAINS = {
    "python": Toolchain("script.py", "", start=(PYTHON, *PYTHON_OPTIONS, "script.py"), limits=_PYTHON),
    "cpp": Toolchain("script.cpp", "g++", ("{compiler}", "-w", "script.cpp", "-o", "script"), ("./script",), _CPP),
    "java": Toolchain(
        "{name}.java",
        "javac",
        ("{compiler}", *(f"-J{option}" for option in _JAVA), "-nowarn", "{name}.java"),
        ("{folder}/java", *_JAVA, "-cp", ".", "{name}"),
        _JVM,
        settings="/etc/java-*",
        also=(("javafx/util/Pair.java", _PAIR),),
    ),
}  # fmt: skip

# Compiling and running share the folder, so they are one program to the sandbox.
_DRIVER = """
import json, os, subprocess, sys
compiler, start = json.loads(input())
if subprocess.run(compiler, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
    sys.exit(97)
os.execv(start[0], start)
"""


def missing_compiler(language: str) -> str | None:
    """The compiler that this machine lacks for a language, or None."""
    compiler = TOOLCHAINS[language].compiler
    return compiler if compiler and shutil.which(compiler) is None else None


def check_script(accept: tuple[str, ...], language: str, script: str) -> Verdict:
    """Whether all tests of a script pass that prints `#Results: PASSED, TESTS`, as TransCoder's do.

    The last such line counts, as in the authors' harness (comp_acc_computation.py); without one it is an error.

    Args:
        accept: protections that may be missing; the limits are the language's own, since compilers need more.

    Raises:
        UserError: the compiler is missing, or see `Sandbox.run`.
    """
    tool = TOOLCHAINS[language]
    sandbox = Sandbox(tool.limits, accept, _found(tool.settings))
    name = match.group(1) if (match := re.search(r"\bclass\s+(\w+)", script)) else "script"
    files = {tool.file.format(name=name): _encodable(script), **dict(tool.also)}
    if not tool.compile:
        return _results(sandbox.run(tool.start, files))
    compiler = shutil.which(tool.compiler)
    if compiler is None:
        raise UserError(f"no {tool.compiler} on this machine; install it, or leave these tasks out")
    compiler = str(Path(compiler).resolve())
    names = {"compiler": compiler, "folder": str(Path(compiler).parent), "name": name}
    steps = [[part.format(**names) for part in step] for step in (tool.compile, tool.start)]
    command = [PYTHON, *PYTHON_OPTIONS, "drive.py"]
    return _results(sandbox.run(command, {**files, "drive.py": _DRIVER}, stdin=json.dumps(steps) + "\n"))


def _found(pattern: str) -> tuple[str, ...]:
    return tuple(sorted(str(path) for path in Path("/").glob(pattern.lstrip("/")))) if pattern else ()


def _results(result: Result) -> Verdict:
    told = re.findall(r"#Results:\s*(\d+)\s*,\s*(\d+)", result.output)
    if told and result.stopped is None and result.signal is None:
        passed, tests = map(int, told[-1])
        return Verdict("passed") if passed == tests else Verdict("wrong", f"{passed} of {tests} tests passed")
    if result.exit == 97:
        return Verdict("compile")
    if result.exit == 1 and (raised := re.search(r"^(\w+)(?::.*)?\s*\Z", result.output, re.MULTILINE)):
        return Verdict("error", _short(raised.group(1)))
    return _unfinished(result)


def _unfinished(result: Result) -> Verdict:
    if result.out_of_time:
        return Verdict("timeout")
    if result.stopped == "memory":
        return Verdict("memory")
    return Verdict("ended", f"signal {result.signal}" if result.signal else f"status {result.exit}")


def _short(name: str) -> str:
    """A name that the program may have chosen, fit for one line."""
    return re.sub(r"\W", "", name)[:60]


def _encodable(text: str) -> str:
    """Lone surrogates, which a model's bytes may decode to and no file can hold, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
