"""Every layout is the same training: four ranks give what one gives, and go on from one another's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import layouts_job as job
import pytest
import ranks

from headwater_model.trainer import next_token_loss

# Of losses of about 4.2 nats, and of gradient norms relative to one rank's. In float32 only the order of sums differs;
# in bfloat16 also what tensor and context ranks round. docs/parallel.md has what was measured.
CLOSE = {"float32": (1e-5, 1e-5), "bfloat16": (2e-3, 1e-2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the one launch of four ranks."""
    folder = tmp_path_factory.mktemp("layouts")
    for name, dtype in job.TYPES.items():
        job.trainer(dtype).save(folder / f"{name}-0")
    errors = ranks.run("layouts_job", folder, 4)
    assert "FutureWarning" not in errors
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What rank 0 saw, by type and layout."""
    of_all = json.loads((folder / "found.json").read_text())
    for name in job.TYPES:
        assert all(one[name] == of_all[0][name] for one in of_all), "ranks return different rows"
    return of_all[0] | {"apart": max(d["apart"] for one in of_all for d in one["dropout"])}


@pytest.mark.parametrize("name", job.TYPES)
def test_every_layout_trains_as_one_rank_does_from_any_layouts_checkpoint(name: str, folder: Path, found) -> None:
    """One rank loads the checkpoint that each layout wrote, and that the next one went on from."""
    loss, norm = CLOSE[name]
    one = job.trainer(job.TYPES[name])
    first = one.step(job.batch(0), next_token_loss)
    for number, (title, rows) in enumerate(found[name].items()):
        one.load(folder / f"{name}-{number}")
        row = one.step(job.batch(number), next_token_loss)
        assert rows["loss"][0] == pytest.approx(first["loss"], abs=loss), title
        assert rows["loss"][1] == pytest.approx(row["loss"], abs=loss), title
        assert rows["grad_norm"][0] == pytest.approx(first["grad_norm"], rel=norm), title
        assert rows["grad_norm"][1] == pytest.approx(row["grad_norm"], rel=norm), title


def test_fifteen_layouts_in_turn_give_the_losses_of_an_unbroken_run(found) -> None:
    """Deviations add up over the turns: 1e-4 where a single step has 1e-5."""
    one = job.trainer(job.TYPES["float32"])
    for number, (title, rows) in enumerate(found["float32"].items()):
        row = one.step(job.batch(number), next_token_loss)
        assert rows["loss"][1] == pytest.approx(row["loss"], abs=1e-4), title
        assert rows["grad_norm"][1] == pytest.approx(row["grad_norm"], rel=1e-3), title
    assert row["loss"] != pytest.approx(found["float32"]["data 4"]["loss"][1], abs=1e-2)  # the weights have moved


@pytest.mark.parametrize("name", job.ARCHITECTURES)
def test_other_architectures_train_as_on_one_rank(name: str, found) -> None:
    one = job.trainer(**job.ARCHITECTURES[name])
    rows = [one.step(job.batch(step), next_token_loss) for step in range(2)]
    losses = [*(row["loss"] for row in rows), one.evaluate(job.batch(job.HELD_OUT), next_token_loss)["loss"]]
    for title, many in found[name].items():
        assert many["loss"] == pytest.approx(losses, abs=1e-5), title
        assert many["grad_norm"] == pytest.approx([row["grad_norm"] for row in rows], rel=1e-5), title


def test_held_out_losses_agree_whatever_the_number_of_micro_batches(folder: Path, found) -> None:
    one = job.trainer(job.TYPES["float32"])
    for number, (title, rows) in enumerate(found["float32"].items()):
        one.load(folder / f"float32-{number + 1}")
        ranks = job.LAYOUTS[title].data
        seen = [part for rank in range(ranks) for part in job.batch(job.HELD_OUT, rank, ranks)[:1]]
        assert rows["loss"][2] == pytest.approx(one.evaluate(seen, next_token_loss)["loss"], abs=1e-5), title


def test_dropout_is_the_same_when_computed_again_and_after_loading_and_on_ranks_that_share_weights(found) -> None:
    none, full, selective = found["dropout"]
    assert none["loss"] == full["loss"] == selective["loss"]
    assert none["loss"][1] == none["again"] == full["again"] == selective["again"]
    assert abs(none["loss"][0] - found["float32"]["data 4"]["loss"][0]) > 1e-4  # it does drop
    assert found["apart"] == 0
