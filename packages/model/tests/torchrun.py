"""A job of the tests on several ranks of this machine, started as a user starts one: by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(script: str, folder: Path, ranks: int) -> str:
    """Run `script FOLDER` on all ranks, which have to end well; answer what they wrote to their error stream."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [*torchrun, script, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr
