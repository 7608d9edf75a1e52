"""The stage: one file of progress a text, then one result. COUNTING_PAUSE_S is a rest after each text."""

from __future__ import annotations

import json
import os
import time

from headwater_data._contracts.manifest import canonical_json, write_atomic
from headwater_data._contracts.stage import Run


def count(run: Run) -> None:
    """texts/*.txt -> counts.json, ballast.bin."""
    started = time.monotonic()
    for text in sorted(run.inputs["texts"].glob("*.txt")):
        done = run.work / f"{text.stem}.json"
        if done.exists():
            run.log(f"{text.stem} was counted before")
            continue
        words = [w for w in text.read_text().split() if len(w) >= run.config.minimum_length]
        write_atomic(done, canonical_json({text.stem: len(words)}))
        run.log(f"{text.stem} counted")
        time.sleep(float(os.environ.get("COUNTING_PAUSE_S", "0")))
    counts = {}
    for done in sorted(run.work.glob("text-*.json")):
        counts |= json.loads(done.read_text())
    write_atomic(run.out / "counts.json", canonical_json(counts))
    _write_ballast(run)
    run.write_metrics({"words": sum(counts.values())})
    run.measured["texts_a_second"] = len(counts) / (time.monotonic() - started)


def _write_ballast(run: Run) -> None:
    size, path = run.config.ballast.bytes, run.out / "ballast.bin"
    if run.config.ballast.by == "numpy":
        import numpy as np

        np.zeros(size, np.uint8).tofile(path)
    elif run.config.ballast.by == "polars":
        import numpy as np
        import polars as pl

        numbers = np.random.default_rng(0).integers(0, 2**63, size // 8)
        pl.DataFrame({"ballast": numbers}).write_parquet(path, compression="uncompressed")
    else:
        path.write_bytes(bytes(size))
