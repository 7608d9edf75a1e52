"""`headwater-eval run`: any model, named tasks and suites; nothing stale, no scan, and ranks that change no byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headwater_eval import samples
from headwater_eval._contracts import manifest as artefacts
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.cli import main

TASKS = "boolq,piqa,crows_pairs_english"


@pytest.fixture
def items(sources: Path, tmp_path: Path) -> Path:
    assert main(["items", "--in", str(sources), "--out", str(tmp_path / "items"), "--work", str(tmp_path / "w")]) == 0
    return tmp_path / "items"


@pytest.fixture(scope="module")
def model(tmp_path_factory, save_model) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), 1)


def run(model: str | Path, items: Path, folder: Path, *options: str, tasks: str = TASKS) -> Path:
    what = [] if "--suite" in options else ["--tasks", tasks]
    arguments = ["run", "--model", str(model), "--items", str(items), *what, *options]
    out = folder / f"out{len(list(folder.glob('out*')))}"
    assert main([*arguments, "--out", str(out), "--work", str(folder / "work")]) == 0
    return out


def metrics(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def test_it_makes_the_artefact_of_evaluate(model: Path, items: Path, tmp_path: Path, write_corpus) -> None:
    corpus = write_corpus(tmp_path / "corpus", ["the cat"], ["the cat sat on the mat. " * 9] * 3)
    out = run(model, items, tmp_path, "--corpus", str(corpus))
    assert artefacts.verify(out, ("results",)).stage == "run"
    inputs = [f"--in={name}={path}" for name, path in (("model", model), ("items", items), ("corpus", corpus))]
    assert main(["evaluate", *inputs, "--out", str(tmp_path / "e"), "--work", str(tmp_path / "work")]) == 0
    assert metrics(out) == metrics(tmp_path / "e")
    assert {"boolq", "piqa", "heldout", "average"} <= set(metrics(out))
    assert samples.read(out) == samples.read(tmp_path / "e")
    text = (out / "results.json").read_text() + (out / "manifest.json").read_text()
    assert str(tmp_path) not in text and str(model) not in text and " at 0x" not in text


def test_two_ranks_end_in_the_bytes_of_one(model: Path, items: Path, tmp_path: Path) -> None:
    one = run(model, items, tmp_path, "--cache", "none")
    (tmp_path / "two").mkdir()
    two = run(model, items, tmp_path / "two", "--cache", "none", "--ranks", "2")
    assert artefacts.read(one) == artefacts.read(two)


def test_edited_items_get_new_answers(model: Path, items: Path, tmp_path: Path) -> None:
    first = run(model, items, tmp_path)
    path = items / "piqa.jsonl"
    path.write_text(path.read_text().replace("dresser", "cupboard"))
    again = run(model, items, tmp_path)
    prompts = [[row["prompt"] for row in samples.read(out) if row["task"] == "piqa"] for out in (first, again)]
    assert "dresser" in prompts[0][0] and "cupboard" in prompts[1][0]
    assert samples.read(again) == samples.read(run(model, items, tmp_path, "--cache", "none", "--set", "seed=7"))
    pairs = [[row["logprobs"] for row in samples.read(out) if row["task"] == "piqa"] for out in (first, again)]
    assert pairs[0][0] != pairs[1][0] and pairs[0][1] == pairs[1][1]


def test_other_weights_in_the_same_folder_get_new_answers(items: Path, tmp_path: Path, save_model) -> None:
    folder = tmp_path / "model"
    save_model(folder, 1)
    first = run(folder, items, tmp_path)
    save_model(folder, 2)
    second = run(folder, items, tmp_path)
    assert samples.read(second) != samples.read(first)
    (tmp_path / "fresh").mkdir()
    assert artefacts.read(second) == artefacts.read(run(folder, items, tmp_path / "fresh"))


def test_a_suite_says_what_was_left_out_and_why(model: Path, items: Path, tmp_path: Path, capsys) -> None:
    out = run(model, items, tmp_path, "--suite", "full", "--limit", "1")
    results, told = json.loads((out / "results.json").read_text()), capsys.readouterr().out
    assert {"boolq", "piqa"} <= set(results["results"]) and "openbookqa" not in results["results"]
    assert set(results["skipped"]) | set(results["results"]) >= set(BENCHMARKS)
    assert str(tmp_path) not in json.dumps(results)
    assert "data for openbookqa not found" in results["skipped"]["openbookqa"] and "openbookqa: skipped: data" in told


def test_named_tasks_never_scan_lm_evals(model: Path, items: Path, tmp_path: Path, monkeypatch) -> None:
    import lm_eval.tasks
    import lm_eval.tasks._index as index

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a scan of all tasks")

    monkeypatch.setattr(lm_eval.tasks.TaskManager, "__init__", refuse)
    monkeypatch.setattr(index.TaskIndex, "build", refuse)
    run(model, items, tmp_path, "--cache", "none")


BLOCKED = """
import sys
for name in ("headwater_model", "megatron"):
    sys.modules[name] = None
from headwater_eval.cli import main
sys.exit(main(sys.argv[1:]))
"""


def _without_headwater_model(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", BLOCKED, "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_backend_of_lm_eval_needs_no_headwater_model(items: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    where = ["--items", str(items), "--out", str(out), "--work", str(tmp_path / "work")]
    done = _without_headwater_model("--model", "dummy", "--tasks", "boolq,piqa", *where)
    assert done.returncode == 0, done.stderr
    assert artefacts.verify(out, ("results",)) and metrics(out)["piqa"]["n"] == 2
    assert not (tmp_path / "work/requests.sqlite").exists()  # nobody knows what answers under that name


def test_a_hugging_face_folder_needs_none_either(model: Path, items: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="lm-eval's hf imports it")
    out = tmp_path / "hf"
    where = ["--items", str(items), "--out", str(out), "--work", str(tmp_path / "work")]
    done = _without_headwater_model("--model", str(model), "--tasks", TASKS, *where)
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(samples.read(run(model, items, tmp_path)), samples.read(out), strict=True):
        assert ours["logprobs"] == pytest.approx(theirs["logprobs"], abs=1e-3)
        assert {n: ours[n] for n in ("doc_id", "picked", "prompt")} == {
            n: theirs[n] for n in ("doc_id", "picked", "prompt")
        }


class _Completions(BaseHTTPRequestHandler):
    """A server in OpenAI's form whose model gives id t the log-probability -(t % 7) / 10 - 0.1, come what may."""

    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        choices = []
        for index, ids in enumerate(prompts):
            nats = [-(t % 7) / 10 - 0.1 for t in [*ids, 0]]
            logprobs = {"token_logprobs": nats, "top_logprobs": [{"x": -0.1} for _ in nats]}
            choices.append({"index": index, "text": "", "logprobs": logprobs})
        told = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_of_completions_is_asked_and_kept_only_where_a_file_is_named(
    model: Path, items: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tenacity", reason="lm-eval's servers need it")
    from tokenizers import Tokenizer

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Completions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1/completions"
    arguments = ["--model-args", f"model=m,base_url={url},tokenizer={model}"]
    cache = tmp_path / "c"
    out = run("local-completions", items, tmp_path, *arguments, "--cache", str(cache), tasks="piqa")
    words, (row, _) = Tokenizer.from_file(str(model / "tokenizer.json")), samples.read(out)
    start = len(words.encode(row["prompt"]).ids)
    for choice, nats in zip(row["choices"], row["logprobs"], strict=True):
        ids = words.encode(f"{row['prompt']} {choice}").ids[start:]
        assert nats == pytest.approx(sum(-(t % 7) / 10 - 0.1 for t in ids))
    asked = _Completions.asked
    run("local-completions", items, tmp_path, *arguments, "--cache", str(cache), "--set", "seed=2", tasks="piqa")
    assert _Completions.asked == asked > 0
    run("local-completions", items, tmp_path, *arguments, "--set", "seed=3", tasks="piqa")
    assert _Completions.asked == 2 * asked
    server.shutdown()


@pytest.mark.parametrize("change, told", [
    (["--model", "nowhere"], "neither a folder nor a backend of lm-eval"),
    (["--model", "."], "neither config.json"),
    (["--model-args", "a=1"], "takes no model arguments"),
    (["--model-args", "a"], "write NAME=VALUE"),
    (["--tasks", "piqua"], "unknown task piqua"),
    (["--tasks", "openbookqa"], "data for openbookqa not found"),
    (["--items", "nowhere"], "no such folder"),
    (["--set", "lmit=3"], "limit"),
    (["--dtype", "float8"], "dtype"),
    (["--suite", "ful"], "unknown suite ful"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(change, told, model: Path, items: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--model": str(model), "--items": str(items), "--tasks": "piqa", "--out": "o", "--work": "work"}
    given |= dict([change])
    if change[0] == "--suite":
        del given["--tasks"]
    assert main(["run", *(part for pair in given.items() for part in pair)]) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert told in error and "\n" not in error and not (tmp_path / "o").exists()
