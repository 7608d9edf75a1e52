"""Environments of their own for the peers: their requirements collide with ours (numpy, trafilatura, tokenizers)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = {
    "datatrove": ["datatrove[processing]==0.10.1", "spacy==3.8.18", "warcio==1.8.1", "faust-cchardet",
                  "python-magic", "orjson", "polars", "rensa==0.5.0",
                  "datasketch==2.0.0"],
    "dolma": ["dolma==1.2.1", "polars"],
    "tokenizers": ["tokenizers==0.23.3", "tiktoken==0.14.0", "rustbpe==0.1.0", "sentencepiece==0.2.3", "pyarrow",
                   "numpy"],
    "transformers": ["torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "lm-eval==0.4.13", "numpy"],
    "trl": ["torch==2.13.0", "trl==1.16.0", "transformers==5.23.0", "accelerate==1.15.0", "numpy"],
    "trl-ppo": ["torch==2.13.0", "trl==1.12.0", "transformers==5.23.0", "accelerate==1.15.0", "numpy"],
    "presidio": ["presidio-analyzer==2.2.366", "faker==40.63.0"],
}  # fmt: skip
"""Name -> what is installed; the names are the environments' folders below work/peers."""


def python(peer: str) -> Path:
    """The interpreter of a peer's environment, made at first use; "own" is this one."""
    if peer == "own":
        return Path(sys.executable)
    folder = ROOT / "work" / "peers" / peer
    wanted = "\n".join(PEERS[peer])
    if not (folder / "ready").exists() or (folder / "ready").read_text() != wanted:
        uv = Path(sys.executable).parent / "uv"
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True
        )
        links = os.environ.get("UV_FIND_LINKS") or asked.stdout.strip()
        environment = {**os.environ, "VIRTUAL_ENV": str(folder), "UV_FIND_LINKS": links}
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", *PEERS[peer]], check=True, env=environment)
        (folder / "ready").write_text(wanted)
    return folder / "bin" / "python"


def measure(peer: str, module: str, function: str, *arguments: str | Path) -> dict:
    """Run `benchmarks/MODULE.py FUNCTION ARGUMENTS` in a peer's environment: {"cpu_s": ..., and what it counted}."""
    script = ROOT / "benchmarks" / f"{module}.py"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [python(peer), script, function, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{peer} {function} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def alternate(a: tuple, b: tuple, repetitions: int) -> tuple[dict, dict]:
    """`measure(*a)` and `measure(*b)`, A B A B; each with the median of its CPU seconds."""
    results: tuple[list[dict], list[dict]] = ([], [])
    for _ in range(repetitions):
        for side, arguments in zip(results, (a, b), strict=True):
            side.append(measure(*arguments))
    first, second = ({**r[-1], "cpu_s": statistics.median(x["cpu_s"] for x in r)} for r in results)
    return first, second
