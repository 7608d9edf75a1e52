"""Local and asynchronous SGD: what they share with synchronous training, how stale gradients may be, who may be lost.

What needs several ranks is made by one launch of four processes (decentralised_ranks.py) and looked at here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ranks
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model import launch
from headwater_model._contracts.errors import UserError
from headwater_model.decentralised.staleness import Clocks

Found = Callable[..., Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What process `rank` kept of a run."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks.run("decentralised_ranks", folder, 4)
    return lambda name, rank=0: json.loads((folder / f"{name}-{rank}.json").read_text())


# ---- local SGD


def test_meeting_at_every_step_with_outer_rate_1_is_synchronous_sgd(found: Found) -> None:
    """Mean of (w - lr g) = w - lr mean(g); only the order of sums differs."""
    for rank in range(4):
        assert found("averaged", rank)["gap"] < 1e-6 < 0.01 < found("averaged", rank)["moved"]


def test_the_outer_step_is_sgd_with_nesterov_momentum_on_the_way_since_the_last_meeting(found: Found) -> None:
    assert found("alone")["nesterov"] < 1e-5


def test_one_replica_with_outer_rate_1_and_no_momentum_is_plain_training(found: Found) -> None:
    """w - (w - v) is v up to rounding."""
    assert found("alone")["mean"] < 1e-6


def test_replicas_part_and_are_equal_after_each_meeting_and_after_the_last_step(found: Found) -> None:
    run = found("diloco")
    assert run["apart"] > 1e-3 and run["together"] == 0 and run["last"] == 0


def test_a_replica_communicates_its_weights_at_meetings_only(found: Found) -> None:
    run = found("diloco")
    meetings = [step for step, sent in enumerate(run["bytes"], 1) if sent]
    assert meetings == [4, 8, 10] and {run["bytes"][step - 1] for step in meetings} == {4.0 * run["parameters"]}


def test_saved_between_two_meetings_and_loaded_it_goes_on_to_the_same_weights(found: Found) -> None:
    assert all(found("diloco", rank)["resumed"] for rank in range(4))


def test_replicas_evaluate_together_what_one_would_alone(found: Found) -> None:
    run = found("diloco")
    assert run["evaluated"]["count"] == run["expected"]["count"]
    assert run["evaluated"]["loss"] == pytest.approx(run["expected"]["loss"], abs=1e-5)


def test_replicas_split_over_tensor_parallel_ranks_give_the_losses_of_whole_ones(found: Found) -> None:
    assert all(found("islands", rank)["gap"] < 1e-4 for rank in range(4))


def test_replicas_go_on_from_the_newest_step_that_all_have_whole(found: Found) -> None:
    runs = [found("common", rank) for rank in range(4)]
    assert all(run["found"] == "step-00000008" and run["left"] == ["step-00000008"] for run in runs)
    assert any("weights has changed" in line for line in runs[1]["said"])


def test_a_replica_that_dies_ends_the_others_with_one_line(found: Found) -> None:
    line = found("replica", 1)
    assert line.startswith("another process has ended or fell silent (") and line.endswith(
        "start the run again to go on"
    )
    assert len(line.splitlines()) == 1


# ---- asynchronous SGD


def staleness(run: dict) -> list[float]:
    return [row["staleness"] for row in run["rows"]]


def test_with_one_worker_it_is_plain_training_to_the_bit(found: Found) -> None:
    assert found("one")["weights"] == found("synchronous")


def test_seeded_arrivals_repeat_a_run_to_the_bit_and_another_seed_does_not(found: Found) -> None:
    assert found("seeded") == found("again") and found("seeded")["weights"] != found("other")["weights"]


@pytest.mark.parametrize(("name", "bound"), [("seeded", 1), ("other", 1), ("lockstep", 0)])
def test_staleness_is_measured_and_stays_within_its_bound(found: Found, name: str, bound: int) -> None:
    measured = staleness(found(name))
    assert 0 < max(measured) <= (2 * bound + 1) * 2
    rows = found(name)["rows"]
    last_of = {}
    for update, row in enumerate(rows):  # an answer follows the worker's own last push: what came between is stale
        assert row["staleness"] <= update - last_of.get(row["worker"], 0)
        last_of[row["worker"]] = update


def test_damping_divides_the_learning_rate_by_the_staleness(found: Found) -> None:
    for row in found("damped")["rows"]:
        assert row["lr"] == pytest.approx(0.01 / max(1, row["staleness"]))
    assert found("damped")["weights"] != found("seeded")["weights"]


def test_it_learns(found: Found) -> None:
    for name in ("seeded", "lockstep"):
        losses = [row["loss"] for row in found(name)["rows"]]
        assert losses[-1] < losses[0] - 0.5


def test_stopped_and_loaded_every_batch_is_applied_once(found: Found) -> None:
    batches = [row["batch"] for name in ("first", "second") for row in found(name)["rows"]]
    assert len(found("first")["rows"]) == 10 and sorted(batches) == list(range(20))


def test_a_worker_that_dies_is_named_once_and_its_batch_done_by_another(found: Found) -> None:
    run = found("death")
    assert len(run["said"]) == 1 and run["said"][0].startswith("worker 3 is lost at step ")
    assert run["said"][0].endswith("going on with 2")
    assert sorted(row["batch"] for row in run["rows"]) == list(range(20))
    assert sum(found("death", rank)["done"] for rank in (1, 2)) >= 16


def test_the_servers_death_ends_every_worker_with_one_line(found: Found) -> None:
    for rank in (1, 2):
        assert found("end", rank) == "the parameter server has ended; start the run again to go on"


def test_only_rank_0_counts_where_the_others_are_dispensable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    launch.run("decentralised_ranks", ["dispensable"], 2, tmp_path, dispensable=True)
    with pytest.raises(UserError, match="rank 1: ended with code 3"):
        launch.run("decentralised_ranks", ["dispensable"], 2, tmp_path)


@settings(deadline=None)
@given(st.integers(1, 5), st.sampled_from([0, 1, 2, 5, None]), st.integers(0, 40), st.data())
def test_however_workers_arrive_and_die_every_batch_is_done_once_and_no_bound_is_passed(workers, bound, batches, data):
    clocks = Clocks(range(workers), bound, batches)
    for worker in range(workers):
        clocks.wait(worker)
    done: list[int] = []
    clocks.start()
    while not clocks.done:
        assert clocks.computing  # somebody can always go on
        if bound is not None:
            ahead = [clocks.clocks[worker] - min(clocks.clocks.values()) for worker in clocks.computing]
            assert max(ahead) <= bound
        worker = data.draw(st.sampled_from(clocks.computing))
        if len(clocks.clocks) > 1 and data.draw(st.integers(0, 9)) == 0:
            clocks.lose(worker)
        else:
            batch, stale = clocks.finish(worker)
            done.append(batch)
            assert stale >= 0 and (bound is None or stale <= (2 * bound + 1) * (workers - 1))
            clocks.wait(worker)
        clocks.start()
    assert sorted(done) == list(range(batches)) and not clocks.computing and not clocks.open_batches


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 30), st.data())
def test_restored_in_the_middle_the_batches_left_are_those_that_were_not_done(workers, batches, data):
    clocks = Clocks(range(workers), 2, batches)
    done: set[int] = set()
    for worker in range(workers):
        clocks.wait(worker)
    clocks.start()
    for _ in range(data.draw(st.integers(0, batches - 1))):
        worker = data.draw(st.sampled_from(clocks.computing))
        done.add(clocks.finish(worker)[0])
        clocks.wait(worker)
        clocks.start()
    again = Clocks(range(2), None, batches)
    again.restore(len(done), clocks.open_batches)
    again.wait(0)
    while not again.done:
        [(_, batch)] = again.start()
        assert batch not in done
        done.add(again.finish(0)[0])
        again.wait(0)
    assert done == set(range(batches))
