"""Every optimiser on two ranks is the one on one rank, through a change of kind and from either's checkpoint."""

from __future__ import annotations

import json

import optimizer_job as job
import pytest
import ranks

from headwater_model.trainer import Trainer, next_token_loss


def test_two_ranks_train_swap_and_save_as_one(tmp_path):
    whole: dict[str, Trainer] = {kind: job.trainer(kind) for kind in job.RATES}
    for kind, one in whole.items():
        one.save(tmp_path / f"{kind}-start")
    ranks.run("optimizer_job", tmp_path, 2)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == len(job.CASES) == 11
    expected = {kind: job.run(one, kind) for kind, one in whole.items()}
    then = {kind: one.step(job.batch(3), next_token_loss)["loss"] for kind, one in whole.items()}
    for kind, layout in job.CASES:
        for ours, theirs in zip(found[f"{kind}-{layout}"], expected[kind], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), (kind, layout)
        resumed = job.trainer(job.NEXT[kind])
        resumed.load(tmp_path / f"{kind}-{layout}")
        assert resumed.step(job.batch(3), next_token_loss)["loss"] == pytest.approx(then[kind], rel=1e-4), (
            kind,
            layout,
        )
