"""Sampled from a real model, handed out, ranked by a simulated labeller, imported: what the next round trains on."""

import json

import pytest

from headwater_align._contracts import manifest
from headwater_align.cli import main
from headwater_align.labels import page

OPTIONS = ["prompts=12", "responses=4", "max_response_length=10", "prompts_per_batch=2"]


def call(command, *arguments, out, code=0):
    given = [*command.split(), *arguments, "--out", str(out), "--work", f"{out}.work"]
    assert main(given) == code
    return out


def options(*pairs):
    return [part for pair in pairs for part in ("--set", pair)]


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def rule(text):
    """What the simulated labeller likes more, the higher: nothing that a person would, but known and often tied."""
    return sum(text.encode()) % 5


def simulated_labeller(sheet, labeller, folder, rule, **more):
    """A test double for a person: ranks every prompt of a labeller's page by `rule`, and saves what the page saves."""
    rankings = []
    for task in lines(sheet / "key.jsonl"):
        if labeller in task["labellers"]:
            scores = {name: rule(text) for name, text in zip(task["names"], task["responses"], strict=True)}
            order = sorted(set(scores.values()), reverse=True)
            ranks = {name: order.index(score) + 1 for name, score in scores.items()}
            rankings.append({"task": task["task"], "ranks": ranks, "at": "2026-01-01T00:00:00Z", **more})
    saved = {"format": page.FORMAT, "version": page.VERSION, "labeller": labeller, "rankings": rankings}
    folder.mkdir(exist_ok=True)
    (folder / f"{labeller}.json").write_text(json.dumps(saved))


@pytest.fixture(scope="module")
def completions(base_model, instructions, tmp_path_factory):
    """Completions of a model under two names."""
    inputs = [f"prompts={instructions}", f"policy={base_model}", f"twin={base_model}"]
    given = [part for item in inputs for part in ("--in", item)]
    return call("sample", *given, *options(*OPTIONS, "policy_name=first"), out=tmp_path_factory.mktemp("s") / "out")


@pytest.fixture(scope="module")
def sheet(completions, tmp_path_factory):
    given = ["--in", f"completions={completions}", *options("labellers=[ann, bob]", "overlap=0.5")]
    return call("labels export", *given, out=tmp_path_factory.mktemp("sheet") / "out")


def test_completions_come_from_all_policies_and_no_two_of_a_prompt_are_equal(completions):
    records = lines(completions / "completions.jsonl")
    metrics = json.loads((completions / "metrics.json").read_text())
    assert len(records) == metrics["prompts"] == 12 and metrics["completions_drawn"] == 48
    assert set(metrics["by_policy"]) == {"first", "twin"}
    for record in records:
        assert len(set(record["responses"])) == len(record["responses"]) == len(record["policies"]) >= 2
        assert record["prompt"][-1]["role"] == "user" and record["round"] == "r1" and record["licence"] == "PSF-2.0"
    assert set(metrics["by_split"]) == {"train", "heldout"} == {r["split"] for r in records}
    assert {r["batch"] for r in records} == {f"r1-{n:03d}" for n in range(1, 7)}


def test_a_completion_does_not_depend_on_its_batch_and_a_new_round_draws_anew(
    completions, base_model, instructions, tmp_path
):
    given = [p for n in (f"prompts={instructions}", f"policy={base_model}", f"twin={base_model}") for p in ("--in", n)]
    other = options(*OPTIONS, "policy_name=first", "prompts_per_batch=5", "rows=3")
    alone = call("sample", *given, *other, out=tmp_path / "alone")
    drawn = [{str(r["prompt"]): r["responses"] for r in lines(f / "completions.jsonl")} for f in (completions, alone)]
    assert drawn[0] == drawn[1]
    again = call("sample", *given, *other, *options("round=r2"), out=tmp_path / "again")
    assert {str(r["prompt"]) for r in lines(again / "completions.jsonl")} != set(drawn[0])


def test_prompts_without_room_and_completions_without_news_are_counted(base_model, instructions, tmp_path, capsys):
    given = ["--in", f"prompts={instructions}", "--in", f"policy={base_model}", *options(*OPTIONS)]
    short = call("sample", *given, *options("max_prompt_length=12", "prompts=90"), out=tmp_path / "short")
    metrics = json.loads((short / "metrics.json").read_text())
    # <|user|>, "Number 7?" in 9 bytes, <|end|> and <|assistant|> are 12 ids; "Number 77?" is one too long.
    assert 0 < metrics["prompts"] <= 10 and metrics["prompts_too_long"] > 60
    call("sample", *given, *options("top_p=0.0001"), out=tmp_path / "greedy", code=1)
    assert "no prompt has two distinct completions" in capsys.readouterr().err
    call("sample", *given, *options("max_prompt_length=250"), out=tmp_path / "long", code=1)
    assert "do not fit a context of 256" in capsys.readouterr().err


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(completions, base_model, instructions, kill_when, tmp_path):
    arguments = [
        "sample",
        "--in",
        f"prompts={instructions}",
        "--in",
        f"policy={base_model}",
        "--in",
        f"twin={base_model}",
    ]
    arguments += options(*OPTIONS, "policy_name=first") + ["--out", f"{tmp_path}/out", "--work", f"{tmp_path}/work"]
    kill_when(lambda: list(tmp_path.glob("work/sample/*/drawn/*.json")), arguments)
    assert not (tmp_path / "out").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("work/sample/*/drawn/*.json")}
    assert 0 < len(kept) < 12
    assert main(arguments) == 0
    assert manifest.read(tmp_path / "out").files == manifest.read(completions).files


def test_rankings_come_back_as_preference_records_that_keep_who_wrote_and_who_judged(completions, sheet, tmp_path):
    for labeller in ("ann", "bob"):
        simulated_labeller(sheet, labeller, tmp_path / "back", rule, confidence=0.75)
    out = call("labels import", str(tmp_path / "back"), "--in", f"sheet={sheet}", out=tmp_path / "labels")
    labels, metrics = lines(out / "labels.jsonl"), json.loads((out / "metrics.json").read_text())
    drawn = {str(r["prompt"]): r for r in lines(completions / "completions.jsonl")}
    assert len(labels) + metrics["tied"] == 18 and metrics["rejects"] == 0  # 12 prompts, half of them twice
    assert len({label["id"] for label in labels}) == len(labels)
    for label in labels:
        of = drawn[str(label["prompt"])]
        assert label["responses"] == of["responses"] and label["policies"] == of["policies"]
        assert (label["round"], label["batch"], label["confidence"]) == (of["round"], of["batch"], 0.75)
        assert label["labeller"] in ("ann", "bob") and label["strength"] is None
        by_rank = sorted(zip(label["ranks"], label["responses"], strict=True))
        counts = [rule(text) for _, text in by_rank]
        assert counts == sorted(counts, reverse=True) and {1} < set(label["ranks"]) <= {1, 2, 3, 4}
    assert metrics["agreement"]["value"] == 1.0 and metrics["alpha"]["value"] == pytest.approx(1)
    assert metrics["win_rates"]["first"]["value"] == pytest.approx(1 - metrics["win_rates"]["twin"]["value"])


def test_skips_comments_and_refused_files_are_told(sheet, tmp_path, capsys):
    back = tmp_path / "back"
    simulated_labeller(sheet, "ann", back, rule, comment="hm")
    simulated_labeller(sheet, "bob", back, len, skipped="harmful or private")
    (back / "odd.csv").write_text("task,name,rank,labeller\nnone,x,1,eve\n")
    out = call("labels import", str(back), "--in", f"sheet={sheet}", out=tmp_path / "labels")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["skipped"] == 9 and metrics["rejects_by_reason"] == {
        "no task of this sheet; import it with the sheet that it came from": 1
    }
    assert metrics["agreement"]["value"] is None  # nobody else ranked what ann did
    assert len(lines(out / "comments.jsonl")) == 9 and lines(out / "rejects.jsonl")[0]["file"] == "odd.csv"
    for name, text, said in (
        ("note.json", '{"a": 1}', "neither saved by the page"), ("cut.json", '{"a"', "not readable as JSON"),
        ("t.csv", "a,b\n1,2\n", "no table with columns"),
        ("u.csv", "task,name,rank\nx,y,1\n", "no ranking of this sheet"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        call("labels import", str(tmp_path / name), "--in", f"sheet={sheet}", out=tmp_path / "no", code=1)
        assert said in capsys.readouterr().err
    call("labels import", str(tmp_path / "absent"), "--in", f"sheet={sheet}", out=tmp_path / "no", code=2)


def test_a_batch_can_be_handed_out_by_itself(completions, tmp_path, capsys):
    given = ["--in", f"completions={completions}"]
    one = call("labels export", *given, *options("batches=[r1-002]", "labellers=[ann]"), out=tmp_path / "one")
    assert {task["batch"] for task in lines(one / "key.jsonl")} == {"r1-002"}
    call("labels export", *given, *options("batches=[r9]"), out=tmp_path / "no", code=1)
    assert "no batch r9" in capsys.readouterr().err
    call("labels export", *given, *options("labellers=[a/b]"), out=tmp_path / "no", code=2)
