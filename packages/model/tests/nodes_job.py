"""What test_nodes.py runs on three ranks, each playing a node: one slow, one whose memory, link and disk fail."""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from pathlib import Path

import headwater_model.cpu  # noqa: F401

import torch

from headwater_model import cordon, launch, nodes
from headwater_model.cli import main as command_line

RANK = int(os.environ["RANK"])
os.environ["SLURMD_NODENAME"] = f"node-{RANK}"
# The three share one machine with whatever else runs there: of the speeds only the one that is planted is judged.
cordon.SPEEDS = {speed: (unit, 0.2 * (speed == "matmul")) for speed, (unit, _) in cordon.SPEEDS.items()}
nodes.SIZE = 512


def slow() -> None:
    product = torch.mm

    def forty_times(*matrices: torch.Tensor) -> torch.Tensor:
        for _ in range(39):
            product(*matrices)
        return product(*matrices)

    torch.mm = forty_times


def lying() -> None:
    exchange, usage = nodes._exchange, namedtuple("usage", "total used free")
    nodes.shutil.disk_usage = lambda folder: usage(10**10, 10**10 - 10**8, 10**8)

    def corrupt(sent: torch.Tensor, got: torch.Tensor, partner: int) -> None:
        exchange(sent, got, partner)
        got[got.numel() // 2] += 1

    nodes._exchange = corrupt
    equal = torch.equal
    torch.equal = lambda a, b: a.dtype != torch.int32 and equal(a, b)


def main(folder: Path | None) -> None:
    torch.set_num_threads(1)
    {1: slow, 2: lying}.get(RANK, lambda: None)()
    out = Path(sys.argv[1])
    arguments = ["--out", str(out / "nodes.json"), "--disk", str(out), "--seconds", "0.5"]
    args = ["check-nodes", *arguments, "--checkpoint-gb", "0.5"]
    nodes.run(_parsed(args))


def _parsed(arguments: list[str]):
    """As the command line parses them."""
    seen = []
    run, nodes.run = nodes.run, seen.append
    command_line(arguments)
    nodes.run = run
    return seen[0]


if __name__ == "__main__":
    sys.exit(launch.as_rank(main))
