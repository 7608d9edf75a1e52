"""headwater-model beside its peers: the same model trained step by step, and generating token by token.

Training: 6 layers of 256, 4 heads, 8,192 ids, batches of 8 x 512 tokens; forward, backward, clipping at 1.0 and AdamW.
Contestants live side by side and take turns, so that a drift of the machine hits all. A row's figure is tokens per
second of CPU time, all threads and ranks together; wall time is given for turns during which the rest of the machine
stood still (/proc/stat). Peers run as they ship and with freed pages kept (as ours does by itself); the best counts.
nanochat is not on the package index, so it is not here.

Generation: the trained shape, fresh weights, 128 new tokens after prompts of 32, the likeliest each time; the peer
reads the folder that ours wrote. In fp32 the two must write the same ids.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.frame import Row, higher_is_better

SCRIPT = Path(__file__).with_name("model_work.py")
TOKENS = 8 * 512
"""A step."""
NEW = 128
"""Tokens generated a step."""
FLOPS_PER_TOKEN = 6 * (6 * (4 * 256 * 256 + 3 * 256 * 704) + 8192 * 256) + 6 * 6 * 512 * 256
"""Of the Llama shape, attention counted causally; the GPT-2 shape's are 2% fewer."""
QUIET = 0.1
"""Cores that the rest of the machine may use in a turn whose wall time counts."""
VERSIONS = {"nanogpt": "recipe of 2024-12, torch 2.13.0", "transformers": "5.23.0, accelerate 1.15.0"}


@dataclass
class Contestant:
    """A process, or several ranks of one training, that trains when told to."""

    name: str
    precision: str
    threads: int
    variant: str
    """Last arguments of the function in model_work.py, with blanks between."""
    pages: bool = False
    ranks: int = 1
    script: Path = SCRIPT
    """Where the function of that name stands."""
    environment: str = ""
    """Of `peers.PEERS`; empty: as the name says."""
    turns: list[dict[str, float]] = field(default_factory=list)
    made: Any = None
    """What the last step answered."""

    def start(self) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment |= {"KEEP_PAGES": "1"} if self.pages else {}
        if self.ranks > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
            environment |= {"WORLD_SIZE": str(self.ranks), "GLOO_SOCKET_IFNAME": "lo"}
        interpreter = peers.python(self.environment or ("transformers" if "transformers" in self.name else "own"))
        command = [
            str(interpreter),
            str(self.script),
            self.name,
            str(self.threads),
            self.precision,
            *self.variant.split(),
        ]
        self.processes = [
            subprocess.Popen(
                command, env={**environment, "RANK": str(rank), "OMP_NUM_THREADS": str(self.threads)}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for rank in range(self.ranks)
        ]  # fmt: skip

    def ready(self) -> None:
        for process in self.processes:
            self._read(process)

    def turn(self, steps: int) -> None:
        """Train, and keep CPU and wall seconds a step, and how many cores all else used."""
        busy, start = _busy(), time.monotonic()
        for process in self.processes:
            print(steps, file=process.stdin, flush=True)
        cpu = sum(self._read(process)["cpu_s"] for process in self.processes)
        wall = time.monotonic() - start
        self.turns.append({"cpu": cpu / steps, "wall": wall / steps, "rest": (_busy() - busy - cpu) / wall})

    def _read(self, process: subprocess.Popen) -> dict[str, float]:
        line = process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            told = process.communicate()[1][-2000:]
            raise RuntimeError(f"{self.name} {self.precision} {self.variant} ended:\n{told}")
        answer = json.loads(line)
        self.made = answer.pop("made")
        return answer

    def end(self) -> None:
        for process in self.processes:
            process.communicate()

    def cpu(self) -> float:
        """CPU seconds a step, the median."""
        return statistics.median(turn["cpu"] for turn in self.turns)

    def wall(self) -> float | None:
        """Wall seconds a step, the median of quiet turns; None without any."""
        quiet = [turn["wall"] for turn in self.turns if turn["rest"] < QUIET]
        return statistics.median(quiet) if quiet else None


def run(quick: bool) -> list[Row]:
    """A row a precision, number of cores and peer."""
    rows = []
    for precision in ("bf16", "fp32"):
        for cores in (1,) if quick else (1, 2):
            rows += _training(precision, cores, quick)
        rows += _generation(precision, quick)
    return rows


def take_turns(contestants: list[Contestant], turns: int, steps: int) -> None:
    """Start all, let each train or generate in turn, end all."""
    for contestant in contestants:
        contestant.start()
    for contestant in contestants:
        contestant.ready()
    for _ in range(turns):
        for contestant in contestants:
            contestant.turn(steps)
    for contestant in contestants:
        contestant.end()


def _training(precision: str, cores: int, quick: bool) -> list[Row]:
    ours = [Contestant("headwater", precision, cores, "llama")]
    if cores > 1:
        ours.append(Contestant("headwater", precision, 1, "llama", ranks=cores))
    theirs = [
        Contestant("nanogpt", precision, cores, variant, pages)
        for variant in ("eager", "compiled")
        for pages in (False, True)
    ]
    theirs += [
        Contestant("transformers", precision, cores, shape, pages)
        for shape in ("gpt2", "llama")
        for pages in (False, True)
    ]
    if quick:
        theirs = [c for c in theirs if c.pages and c.variant in ("eager", "llama")]
    matmul = Contestant("peak", precision, cores, "2048")
    take_turns([matmul, *ours, *theirs], turns=1 if quick else 4, steps=2 if quick else 3)
    peak = 10 * 2 * 2048**3 / matmul.cpu()
    ours.sort(key=Contestant.cpu)
    rows = []
    for peer in ("nanogpt", "transformers"):
        best: dict[tuple, Contestant] = {}
        for contestant in theirs:
            if contestant.name == peer:
                best[contestant.variant, contestant.pages] = contestant
        for (variant, pages), contestant in best.items():
            rows.append(_row(precision, cores, ours[0], contestant, peak, variant, pages))
    return rows


def _row(precision: str, cores: int, ours: Contestant, peer: Contestant, peak: float, variant: str, pages: bool) -> Row:
    speeds = [TOKENS / contestant.cpu() for contestant in (ours, peer)]
    used = [f"{speed * FLOPS_PER_TOKEN / peak:.0%}" for speed in speeds]
    walls = [contestant.wall() for contestant in (ours, peer)]
    quiet = all(walls)
    how = f"median of {len(ours.turns)} turns; ours as {ours.ranks} rank(s) of {ours.threads} thread(s); "
    how += f"{used[0]} and {used[1]} of the matmul peak of {peak / 1e9:.0f} GFLOP/s a core; "
    how += "wall tokens/s " + (
        " and ".join(f"{TOKENS / wall:.0f}" for wall in walls if wall)
        if quiet
        else "not measured: the machine was busy"
    )
    where = f"{cores} core{'s' if cores > 1 else ''}: {variant}, {'kept pages' if pages else 'as shipped'}"
    return higher_is_better(
        f"train {precision}, {where}", "tokens/CPU s", speeds[0], peer.name, VERSIONS[peer.name], speeds[1],
        1.5 if precision == "bf16" else 1.0, how,
    )  # fmt: skip


def _generation(precision: str, quick: bool) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        maker = [str(peers.python("own")), str(SCRIPT), "write_model", "1", precision, folder]
        subprocess.run(maker, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for batch in (1,) if quick else (1, 16):
            ours, theirs = (
                Contestant(f"generate_{name}", precision, 1, f"{folder} {batch}", pages=True)
                for name in ("headwater", "transformers")
            )
            take_turns([ours, theirs], turns=1 if quick else 5, steps=1)
            same = sum(a == b for a, b in zip(ours.made, theirs.made, strict=True))
            if precision == "fp32" and same < batch:
                raise AssertionError(f"generation: {batch - same} of {batch} texts differ")
            how = f"median of {len(ours.turns)} turns, one thread; {same} of {batch} texts the same"
            rows.append(
                higher_is_better(
                    f"generate {precision}, batch of {batch}", "tokens/CPU s", NEW * batch / ours.cpu(), "transformers",
                    VERSIONS["transformers"], NEW * batch / theirs.cpu(), 1.0, how,
                )
            )  # fmt: skip
    return rows


def _busy() -> float:
    """CPU seconds that the machine has spent on anything."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
