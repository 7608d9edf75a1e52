"""Stage `instructions`: demonstrations and tasks -> chat messages, mixed, split into train and held-out."""

from __future__ import annotations

from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..instructions import count, write_split
from .compose import compose


def run(run: Run) -> None:
    """Write train.jsonl, heldout.jsonl, rejects.jsonl, mixture.json, metrics.json; unseen.jsonl where clusters are held
    out."""
    made = compose(run.config, run.inputs["sources"], run.inputs.get("items"), run.log)
    split = {**made.split, "unseen": made.unseen} if made.unseen else made.split
    write_split(run.out, split, made.rejects)
    write_atomic(run.out / "mixture.json", canonical_json(made.mixture))
    run.write_metrics({**count(made.split, made.rejects), "unseen": len(made.unseen), "mixture": made.mixture})
