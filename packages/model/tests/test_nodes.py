"""A slow or faulty node is found and listed, a good one beside it is left alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_model import launch
from headwater_model._contracts.errors import UserError
from headwater_model.cordon import SPEEDS, Limits, judge, pairings, update

TESTS = Path(__file__).parent


def report(node: str, rank: int, **other: object) -> dict:
    speeds = {"matmul": 100.0, "memory": 50.0, "link": 10.0, "disk_write": 1.0, "disk_read": 1.0}
    return {"node": node, "rank": rank, **speeds, "clock_s": 0.001, "faults": [], **other}


def four(**third: object) -> list[dict]:
    return [report(name, rank, **(third if name == "c" else {})) for rank, name in enumerate("abcd")]


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_node_below_its_share_of_the_others_median_is_cordoned_and_one_above_is_not(speed):
    whole, share = report("x", 0)[speed], SPEEDS[speed][1]
    slow, slower = whole * share * 1.01, whole * share * 0.99
    assert not any(judge(four(**{speed: slow}), Limits()).values())
    found = judge(four(**{speed: slower}), Limits())
    assert [node for node, reasons in found.items() if reasons] == ["c"]
    assert speed.replace("_", " ") in found["c"][0] and f"the other nodes {whole:.3g}" in found["c"][0]


def test_a_node_is_as_slow_as_its_slowest_rank_and_two_slow_ones_do_not_hide_each_other():
    reports = [*four(), report("c", 4, matmul=50.0), report("d", 5, matmul=50.0), report("e", 6)]
    assert [node for node, reasons in judge(reports, Limits()).items() if reasons] == ["c", "d"]


def test_faults_clock_and_the_devices_own_speed_are_judged_without_others():
    alone = [report("a", 0, faults=["the sum of an all-reduce is wrong"], clock_s=-2.0)]
    found = judge(alone, Limits(matmul=120.0))["a"]
    assert found == [
        "rank 0: the sum of an all-reduce is wrong",
        "clock is -2.000 s off",
        "matmul 100 TFLOP/s, below 120 for this device",
    ]


def test_a_node_that_was_not_looked_at_stays_listed_and_a_mended_one_comes_back(tmp_path):
    path = tmp_path / "nodes.json"
    first = update(path, {"a": [], "b": ["slow"], "c": ["slow"]})
    assert first["good"] == ["a"] and [entry["node"] for entry in first["cordoned"]] == ["b", "c"]
    path.write_text(json.dumps(first))
    second = update(path, {"a": [], "c": []})
    assert second == {"good": ["a", "c"], "cordoned": [{"node": "b", "reasons": ["slow"]}]}
    path.write_text("[]")
    with pytest.raises(UserError, match="no node list"):
        update(path, {"a": []})


@given(st.integers(0, 40), st.integers(0, 6))
def test_pairs_are_disjoint_in_a_round_and_never_meet_twice(count, rounds):
    found = pairings(count, rounds)
    met = [pair for pairs in found for pair in pairs]
    assert len(met) == len(set(met)) and all(0 <= a < b < count for a, b in met)
    assert len(found) == min(rounds, max(0, count - 1 + count % 2))
    for pairs in found:
        seated = [rank for pair in pairs for rank in pair]
        assert len(seated) == len(set(seated)) == count - count % 2


def test_of_three_nodes_the_slow_the_lying_and_none_else_are_cordoned(tmp_path, monkeypatch, capfd):
    """Three ranks, each a node of its own; what is wrong with two of them is planted in nodes_job.py."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *filter(None, sys.path)]))
    with pytest.raises(UserError, match=r"^rank 0: 2 of 3 nodes should not be used; see "):
        launch.run("nodes_job", [str(tmp_path)], 3, tmp_path / "ranks")
    listed = json.loads((tmp_path / "nodes.json").read_text())
    reasons = {entry["node"]: "; ".join(entry["reasons"]) for entry in listed["cordoned"]}
    assert list(reasons) == ["node-1", "node-2"] and listed["good"] == ["node-0"]
    assert "matmul" in reasons["node-1"] and "the other nodes" in reasons["node-1"]
    assert "memory does not hold what is written to it" in reasons["node-2"]
    assert "bytes arrive changed" in reasons["node-2"] and "of checkpoints are to fit" in reasons["node-2"]
    measured = listed["measured"]
    assert all(one["link"] > 0 and abs(one["clock_s"]) < 0.1 for one in measured) and measured[0]["disk_read"] > 0
    assert not list(tmp_path.glob(".check-nodes*"))
    assert "srun --exclude=node-1,node-2" in capfd.readouterr().out
