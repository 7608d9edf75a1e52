import json

import pytest

from headwater_align.cli import main

ASKED = [{"role": "user", "content": "Why?"}]
RANKED = {"prompt": ASKED, "responses": ["a", "b", "c", "d"], "ranks": [2, 1, 2, 3], "labeller": "ann", "strength": 2}


@pytest.fixture
def convert(tmp_path):
    """A function that writes rows to files, converts them, and gives exit code and the output's path."""

    def run(to, *files, out="out.jsonl"):
        paths = []
        for i, rows in enumerate(files):
            paths.append(tmp_path / f"{'ab'[i]}.jsonl")
            paths[-1].write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return main(["convert", "--from", *map(str, paths), "--to", to, "--out", str(tmp_path / out)]), tmp_path / out

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_of_several_formats_become_one_and_bad_ones_stand_beside_with_their_place(convert, capsys):
    demonstrations = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "license": "MIT"},
        "{broken",
        {"inputs": "Hello", "targets": ""},
    ]
    code, out = convert("openai", demonstrations, [{"prompt": "Hi", "completion": "Ho"}, RANKED])
    assert code == 0
    assert [(r["messages"][0]["content"], r["source"], r["licence"]) for r in lines(out)] == [
        ("Add.\n\n1 and 2", "a", "MIT"),
        ("Hi", "b", "unknown"),
    ]
    rejects = lines(out.with_name("out.rejects.jsonl"))
    assert [(r["file"], r["row"], r["reason"]) for r in rejects] == [
        ("a.jsonl", 1, "not parseable"),
        ("a.jsonl", 2, "empty assistant message"),
        ("b.jsonl", 1, "one of comparisons, and openai holds demonstrations"),
    ]
    assert "5 rows read, 2 demonstrations in 2 rows of openai" in capsys.readouterr().out


def test_a_ranking_becomes_all_its_pairs_under_one_id_and_the_loss_is_said(convert, capsys):
    _, out = convert("trl", [RANKED])
    rows = lines(out)
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [
        ("b", "a"), ("b", "c"), ("b", "d"), ("a", "d"), ("c", "d")
    ]  # fmt: skip
    assert len({r["id"] for r in rows}) == 1
    assert [r.get("margin") for r in rows] == [None, None, 2.0, None, None]
    assert "ties, and the order" in capsys.readouterr().out


def test_the_best_answer_of_a_comparison_becomes_a_demonstration_where_asked_for(tmp_path, capsys):
    told = "\n\nHuman: One?\n\nAssistant: Two.\n\nHuman: Why?\n\nAssistant:"
    rows = [
        {"chosen": f"{told} So.", "rejected": f"{told} No."},
        {"prompt": ASKED, "responses": ["a", "b", "c"], "ranks": [2, 1, 1], "source": "people", "split": "test"},
        {"prompt": "Hi", "completion": "Ho"},
        {"chosen": f"{told} So.", "rejected": f"{told} "},
    ]
    (tmp_path / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["convert", "--from", str(tmp_path / "hh.jsonl"), "--best", "--out", str(tmp_path / "out.jsonl")]
    assert main([*given, "--to", "openai"]) == 0
    made = lines(tmp_path / "out.jsonl")
    assert [[m["content"] for m in row["messages"]] for row in made] == [
        ["One?", "Two.", "Why?", "So."], ["Why?", "b"], ["Hi", "Ho"]
    ]  # fmt: skip
    assert [(row["source"], row.get("split")) for row in made] == [("hh", None), ("people", "heldout"), ("hh", None)]
    assert [r["reason"] for r in lines(tmp_path / "out.rejects.jsonl")] == ["empty completion"]
    capsys.readouterr()
    assert main([*given, "--to", "trl"]) == 2
    assert "--best: makes demonstrations, and trl holds comparisons" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_json_and_parquet_hold_the_same_as_lines(convert, tmp_path, suffix):
    pair = {"prompt": "Q?", "chosen": "a", "rejected": "b"}
    _, whole = convert("labelstudio", [pair, RANKED], out=f"whole{suffix}")
    arguments = ["--to", "ranked", "--out", str(tmp_path / "back.jsonl")]
    assert main(["convert", "--from", str(whole), *arguments]) == 0
    back = lines(tmp_path / "back.jsonl")
    assert [(r["responses"], r["ranks"], r["labeller"], r["strength"]) for r in back] == [
        (["a", "b"], [1, 2], None, None),
        (["a", "b", "c", "d"], [2, 1, 2, 3], "ann", 2.0),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "nowhere.jsonl", "--out", "o.jsonl"], 2, "no such file"),
        (["--from", ".", "--out", "o.jsonl"], 2, "a folder"),
        (["--from", "in.jsonl", "--out", "o.csv"], 2, "end its name in .jsonl, .json, .parquet"),
        (["--from", "in.jsonl", "--out", "in.jsonl"], 2, "would overwrite an input"),
        (["--from", "in.jsonl", "--out", "o.jsonl"], 1, "none of 1 rows could be written as openai; most often"),
        (["--from", "in.parquet", "--out", "o.jsonl"], 1, "in.parquet is no Parquet file"),
        (["--from", "in.jsonl.gz", "--out", "o.jsonl"], 1, "in.jsonl.gz is no gzip file"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_ends_in_one_line_and_no_output(arguments, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("in.jsonl", "in.parquet", "in.jsonl.gz"):
        (tmp_path / name).write_text('{"text": "no conversation"}\n')
    assert main(["convert", "--to", "openai", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "o.jsonl").exists() and not list(tmp_path.glob(".*"))
