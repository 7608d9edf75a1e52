"""What the cross-package tests share: a copy of the tree, and the smoke lineage run once in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
FILES = ("tests/test_kill.py", "tests/test_executors.py", "tests/test_rounds.py")
LONGEST_FIRST = ("model", FILES[0], "align", *FILES[1:], "tokenizer", "eval", "data")
"""Groups of tests that stay on one worker, so that what they share is made once: a package alone in its environment,
or a file. The longest are first, so that workers end together; the worker of the second runs the lineage, for which
the other would only wait."""


def group_of(nodeid: str) -> str:
    """Of a test; one that stands alone is a group of its own."""
    file, _, test = nodeid.partition("::")
    if file == "tests/test_independence.py":
        return test.partition("[")[2].rstrip("]")
    file = {"tests/test_lineage.py": "tests/test_kill.py"}.get(file, file)
    return file if file in LONGEST_FIRST else nodeid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups in their order, then single tests, which fill what is left."""
    order = {group: place for place, group in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """`--dist loadscope` with these groups: the marks of xdist 3.8's loadgroup do nothing under pytest 9.2."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


def copy_tree(target: Path) -> Path:
    """The working tree as a fresh clone would hold it (tracked and new files, none that git ignores)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    return target


def set_scale(tree: Path, scale: str) -> None:
    params = tree / "params.yaml"
    lines = params.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if line.startswith("scale:"))
    lines[place] = f"scale: {scale}\n"
    params.write_text("".join(lines))


def environment() -> dict[str, str]:
    """No network, one thread, and this environment's console scripts first."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "PIP_NO_INDEX": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }


def dvc(tree: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["dvc", *arguments], cwd=tree, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if check and done.returncode:
        pytest.fail(f"dvc {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A tree in which `dvc repro` has run the whole lineage at scale smoke. Read it; change only copies."""
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent  # one run serves all of xdist's workers
    tree = shared / "smoke" / "headwater"
    with FileLock(shared / "smoke.lock"):
        if not (tree / "dvc.lock").exists():
            tree.parent.mkdir()
            copy_tree(tree)
            set_scale(tree, "smoke")
            dvc(tree, "repro")
    return tree


@pytest.fixture
def smoke_copy(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the finished smoke lineage that a test may break."""
    return Path(shutil.copytree(smoke, tmp_path / "headwater", symlinks=True))
