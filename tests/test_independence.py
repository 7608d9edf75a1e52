"""One package, alone: installed from its path into an empty environment, it runs and passes its own tests.

This is where the packages' own tests run: in an environment that holds the package, its declared
requirements, its `test` extra, and for eval and align headwater-model, which both may import. An undeclared
requirement or an import of a sibling fails here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater_data._contracts import manifest as artefacts
from tests.conftest import ROOT

WITH = {"data": [], "tokenizer": [], "model": [], "eval": ["model"], "align": ["model"]}
SMALL_STAGE = {  # one stage that needs little, and the artefacts it reads
    "data": ("collect", []),
    "tokenizer": ("train", ["corpus"]),
    "model": ("plan", ["tokens"]),
    "eval": ("compressor", ["corpus"]),
    "align": ("preferences", ["sources"]),
}


def find_links() -> str:
    """pip's own find-links: uv does not read pip's configuration."""
    given = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    if given:
        return given
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True
    )
    return asked.stdout.strip()


# A package's tests stay on one worker (conftest.py), so that its environment is made once.
@pytest.fixture(scope="module", params=WITH)
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(package, environment): an empty virtual environment with this package installed, not editable."""
    package = request.param
    folder = tmp_path_factory.mktemp(f"alone-{package}") / "venv"
    uv = Path(sys.executable).parent / "uv"
    environment = {**os.environ, "VIRTUAL_ENV": str(folder), "UV_FIND_LINKS": find_links()}
    # The lock only constrains versions here: what is installed follows from the package's own requirements.
    constraints = folder.parent / "constraints.txt"
    lines = (ROOT / "requirements/lock.txt").read_text().splitlines()
    pins = [line.split(" \\")[0] for line in lines if "==" in line and not line.startswith((" ", "#"))]
    torch = (ROOT / "requirements/torch.txt").read_text().split()
    constraints.write_text("\n".join([*pins, *torch]))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True, env=environment)
    paths = [f"{ROOT / 'packages' / package}[test]", *(str(ROOT / "packages" / name) for name in WITH[package])]
    done = subprocess.run(
        [uv, "pip", "install", "-q", "-c", constraints, *paths],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return package, folder


def outside() -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_ADDOPTS")}
    return {**keep, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


# First of its group: once only two of a group are left, xdist gives its worker another group.
@pytest.mark.timeout(2400)  # the model package's take minutes: they start ranks
def test_its_own_tests_pass(alone: tuple[str, Path], tmp_path: Path) -> None:
    """The package's tests, run from a copy outside the repository, so that nothing of it is importable."""
    package, environment = alone
    tests = tmp_path / "tests"
    subprocess.run(["cp", "-r", ROOT / "packages" / package / "tests", tests], check=True)
    done = subprocess.run(
        [environment / "bin/python", "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
        + ["-W", "ignore", "--timeout", "300", "--rootdir", tests, tests],
        cwd=tmp_path, env={**outside(), "PYTHONPATH": str(tests)}, capture_output=True, text=True,
    )  # fmt: skip
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-6000:]


def test_help_names_every_stage(alone: tuple[str, Path], tmp_path: Path) -> None:
    package, environment = alone
    command = environment / "bin" / f"headwater-{package}"
    done = subprocess.run([command, "--help"], cwd=tmp_path, env=outside(), capture_output=True, text=True)
    stage = SMALL_STAGE[package][0]
    assert done.returncode == 0 and stage in done.stdout
    one = subprocess.run([command, stage, "--help"], cwd=tmp_path, env=outside(), capture_output=True, text=True)
    assert all(word in one.stdout for word in ("reads:", "writes:", "costs:"))


def test_no_sibling_came_along(alone: tuple[str, Path], tmp_path: Path) -> None:
    package, environment = alone
    siblings = [name for name in WITH if name not in (package, *WITH[package])]
    code = f"import importlib.util as u; print([n for n in {siblings!r} if u.find_spec('headwater_' + n)])"
    done = subprocess.run([environment / "bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_one_stage_runs(alone: tuple[str, Path], smoke: Path, tmp_path: Path) -> None:
    """A stage of the lone package, on a team mate's artefacts, publishes what it published in the whole tree."""
    package, environment = alone
    stage, inputs = SMALL_STAGE[package]
    done = subprocess.run(
        [environment / "bin" / f"headwater-{package}", stage, "--params", smoke / "params.yaml"]
        + [a for name in inputs for a in ("--in", f"{name}={smoke / 'artefacts' / name}")]
        + ["--out", tmp_path / "out", "--work", tmp_path / "work"],
        cwd=tmp_path, env=outside(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = artefacts.verify(tmp_path / "out")
    assert made.stage == stage and made.package == f"headwater-{package}"
