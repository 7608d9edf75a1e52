"""Scoring, generation and LoRA on four ranks give what one rank gives: one launch for all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forward_job as job
import layouts_job
import pytest
import ranks
import torch

from headwater_model import checkpoint
from headwater_model.trainer import next_token_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the launch."""
    folder = tmp_path_factory.mktemp("forward")
    job.trainer().save(folder / "lora-0")
    ranks.run("forward_job", folder, 4)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What each rank saw, which is the same."""
    of_all = json.loads((folder / "found.json").read_text())
    assert all(one == of_all[0] for one in of_all[1:]), "ranks disagree"
    return of_all[0]


@pytest.mark.parametrize("name", job.ARCHITECTURES)
def test_a_pipeline_scores_and_writes_as_one_rank_does(name: str, found) -> None:
    one = job.scored(**job.ARCHITECTURES[name])
    one["differentiable"] = None
    titles = [title for title, layout in job.FORWARD.items() if name in job.tried(layout)]
    for title in titles:
        many = dict(found["forward"][title][name])
        assert many.pop("differentiable") == (job.FORWARD[title].pipeline == 1)
        assert many.pop("ids") == one["ids"], title
        assert many.pop("flags") == one["flags"], title
        for what, numbers in many.items():
            here, there = torch.tensor(numbers), torch.tensor(one[what])
            assert torch.allclose(here, there, rtol=0, atol=1e-5), (title, what)


def test_what_one_rank_says_is_not_all_alike() -> None:
    """Or else the comparison would be of nothing."""
    one = job.scored()
    assert len({tuple(ids) for rows in one["ids"].values() for ids in rows}) > 8
    assert torch.tensor(one["values"]).std() > 0.1 and torch.tensor(one["logits"]).std() > 0.1


def test_layouts_that_cannot_score_are_refused_in_a_line(found) -> None:
    assert "parallel.chunks 1" in found["refused"]["chunks"]
    assert "parallel.context 1" in found["refused"]["context"]


def test_every_layout_trains_adapters_as_one_rank_does_from_any_layouts_checkpoint(folder: Path, found) -> None:
    fresh = [one.step(layouts_job.batch(step), next_token_loss) for one in (job.trainer(),) for step in range(2)]
    half = job.trainer(torch.bfloat16)
    narrow = [half.step(layouts_job.batch(step), next_token_loss) for step in range(2)]
    one = job.trainer()
    for number, (title, rows) in enumerate(found["lora"].items()):
        one.load(folder / f"lora-{number}")
        wanted = [*fresh, one.step(layouts_job.batch(number), next_token_loss)]
        exact = [0, 1, 4]
        assert [rows["loss"][i] for i in exact] == pytest.approx([row["loss"] for row in wanted], abs=1e-5), title
        norms = [rows["grad_norm"][i] for i in exact]
        assert norms == pytest.approx([row["grad_norm"] for row in wanted], rel=1e-5), title
        assert rows["loss"][2:4] == pytest.approx([row["loss"] for row in narrow], abs=2e-3), title
        assert rows["grad_norm"][2:4] == pytest.approx([row["grad_norm"] for row in narrow], rel=3e-2), title
        assert rows["merged"][0] == pytest.approx(rows["merged"][1], abs=1e-5), title
    untrained = job.trainer().step(layouts_job.batch(number), next_token_loss)["loss"]
    assert abs(untrained - rows["loss"][4]) > 1e-3  # the run that went from layout to layout has learned


def test_the_last_layouts_checkpoint_holds_an_untouched_base(folder: Path) -> None:
    before, after = job.trainer(), job.trainer()
    after.load(folder / f"lora-{len(job.TRAINED)}")
    pairs = zip(before.module.named_parameters(), after.module.parameters(), strict=True)
    for (name, old), new in pairs:
        assert torch.equal(old, new) != ("lora_" in name), name


def test_a_model_without_adapters_reads_what_several_ranks_merged(folder: Path, found) -> None:
    for number, (title, layout) in enumerate(job.TRAINED.items()):
        if layout.chunks == 1:
            plain = layouts_job.trainer()
            read = checkpoint.read(folder / f"merged-{number}", plain.weights())
            plain.module.load_state_dict(read["model"])
            loss = plain.evaluate(layouts_job.batch(layouts_job.HELD_OUT), next_token_loss)["loss"]
            assert loss == pytest.approx(found["lora"][title]["merged"][1], abs=1e-5), title
