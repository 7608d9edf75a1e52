"""headwater-eval's scoring beside lm-eval's own Hugging Face model (HFLM): the same weights, tokenizer and requests.

A model of 10.06M parameters (6 layers of 320, 8,192 ids, tied, fresh weights) in a folder that ours wrote, both read.
Requests are cut from the texts that Python carries, as long as those of the benchmarks that they stand for; tokenizing
is part of the work. Contestants take turns in processes of their own, one thread each, and a row's figure is requests a
second of CPU time; HFLM works in batches of 16, its freed pages kept as ours are. In fp32 all log-likelihoods must
agree within 1e-3 and all greedy flags and texts be the same, or there is no table.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks import peers
from benchmarks.frame import Row, higher_is_better, lower_is_better
from benchmarks.model import Contestant, take_turns

SCRIPT = Path(__file__).with_name("eval_work.py")
VERSION = "0.4.13, transformers 5.23.0"
TARGETS = {"0-shot, 4 choices": 2.5, "5-shot, 4 choices": 6.0, "2 choices of a token": 2.0}
"""Of the issue: what sharing must bring in fp32."""
TOLERANCE = 1e-3  # nats
BATCH = 16
"""HFLM's."""
BF16 = ("0-shot, 4 choices", "5-shot, 4 choices")
"""What is measured in bf16, too."""


def run(quick: bool) -> list[Row]:
    """A row a precision and kind of request, and one for the start."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _own("write_model", str(folder))
        requests = json.loads((folder / "requests.json").read_text())
        for precision in ("fp32",) if quick else ("fp32", "bf16"):
            for kind in requests if precision == "fp32" else BF16:
                rows.append(_row(folder, kind, len(requests[kind]), precision, quick))
    return [*rows, _start(quick)]


def _row(folder: Path, kind: str, count: int, precision: str, quick: bool) -> Row:
    argument = kind.replace(" ", "_").replace(",", "-")
    ours = Contestant("headwater", precision, 1, f"{folder} {argument}", script=SCRIPT)
    theirs = Contestant("hflm_of_transformers", precision, 1, f"{folder} {argument} {BATCH}", pages=True, script=SCRIPT)
    take_turns([ours, theirs], turns=1 if quick else 3, steps=1)
    agreed = _agreement(kind, ours.made, theirs.made, precision)
    how = f"{count} requests, median of {len(ours.turns)} turns, one thread; {agreed}"
    return higher_is_better(
        f"{kind}, {precision}", "requests/CPU s", count / ours.cpu(), "lm-eval hf", VERSION, count / theirs.cpu(),
        TARGETS.get(kind) if precision == "fp32" else None, how,
    )  # fmt: skip


def _agreement(kind: str, ours: list, theirs: list, precision: str) -> str:
    """How far the answers are apart, in words.

    Raises:
        AssertionError: in fp32, further than they may be.
    """
    if isinstance(ours[0], str):
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        assert precision != "fp32" or same == len(ours), f"{kind}: {len(ours) - same} of {len(ours)} texts differ"
        return f"{same} of {len(ours)} texts the same"
    apart = max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True))
    flags = sum(a[1] == b[1] for a, b in zip(ours, theirs, strict=True))
    fine = apart < TOLERANCE and flags == len(ours)
    assert precision != "fp32" or fine, f"{kind}: {apart:.1e} nats apart, {flags} of {len(ours)} flags the same"
    return f"at most {apart:.1e} nats apart, {flags} of {len(ours)} greedy flags the same"


def _start(quick: bool) -> Row:
    """From nothing to a task that can be asked: ours by name, and by lm-eval's task manager."""
    walls = {"ours": [], "theirs": []}  # type: dict[str, list[float]]
    for _ in range(1 if quick else 3):
        for who, function in (("ours", "start_headwater"), ("theirs", "start_lm_eval")):
            walls[who].append(_own(function))
    ours, theirs = (sorted(w)[len(w) // 2] for w in walls.values())
    how = f"CPU seconds of a process that imports lm-eval and has one task, median of {len(walls['ours'])}"
    return lower_is_better(
        "start with one named task", "CPU s", ours, "lm-eval TaskManager", "0.4.13", theirs, None, how
    )


def _own(*arguments: str) -> float:
    """CPU seconds of a function of eval_work.py in this environment."""
    before = os.times()
    command = [str(peers.python("own")), str(SCRIPT), arguments[0], "1", "fp32", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
