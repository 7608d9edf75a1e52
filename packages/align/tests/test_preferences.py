import json

import pytest

from headwater_align.cli import main
from headwater_align.instructions import read_split
from headwater_align.preferences import mismatched

PAIRS = [{"prompt": f"Question {i}?", "chosen": f"Right {i}.", "rejected": f"Wrong {i}."} for i in range(60)]
SHOWN = [{"instruction": f"Question {i}?", "output": "word " * (1 + i % 7) + str(i)} for i in range(60)]


@pytest.fixture
def make(tmp_path, make_sources, jsonl):
    """A function that runs the stage with options and gives its output folder."""
    sources = {
        "judged": ("preferences", {"pairs.jsonl": jsonl(PAIRS)}),
        "shown": ("instructions", {"rows.jsonl": jsonl(SHOWN)}),
    }
    folder = make_sources(tmp_path / "sources", sources)

    def run(*options):
        common = ["--in", f"sources={folder}", "--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
        assert main(["preferences", *common, *options]) == 0
        return tmp_path / "out"

    return run


def test_made_pairs_are_labelled_apart_from_peoples_judgement(make):
    out = make("--set", "mismatched_per_prompt=1")
    by_source = json.loads((out / "metrics.json").read_text())["by_source"]
    assert set(by_source) == {"judged", "shown/mismatched"}
    assert by_source["judged"]["train"] + by_source["judged"]["heldout"] == 60


def test_without_asking_no_pair_is_made(make):
    assert {r["source"] for r in read_split(make(), "train")} == {"judged"}


def test_a_mismatched_pairs_wrong_answer_comes_from_the_same_side_of_the_split(make):
    out = make("--set", "mismatched_per_prompt=2", "--set", "heldout_fraction=0.3")
    prompts = {row["output"]: row["instruction"] for row in SHOWN}
    for side in ("train", "heldout"):
        records = read_split(out, side)
        here = {r["prompt"][0]["content"] for r in records}
        made = [r for r in records if r["source"] == "shown/mismatched"]
        assert made
        for record in made:
            chosen, rejected = record["responses"]
            assert prompts[chosen] == record["prompt"][0]["content"]
            assert prompts[rejected] in here and chosen != rejected


def test_mismatched_answers_are_near_the_right_one_in_length():
    answers = ["a" * n for n in (10, 11, 100, 101)]
    records = [
        {
            "id": str(i),
            "source": "s",
            "licence": "x",
            "split": "train",
            "messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": answer}],
        }
        for i, answer in enumerate(answers)
    ]
    gaps = [abs(len(r["responses"][0]) - len(r["responses"][1])) for r in mismatched(records, 1, 64)]
    assert gaps == [1, 1, 1, 1]
