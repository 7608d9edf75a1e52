"""Code tasks: prompts are lm-eval's, verdicts are the programs' own, scores are counted by hand."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_eval import engine, evaluate, samples, transcoder
from headwater_eval._contracts.errors import UserError
from headwater_eval.benchmark import Benchmark
from headwater_eval.catalogue import BENCHMARKS
from headwater_eval.code_tasks import check_humaneval, check_mbpp, check_transcoder, configured
from headwater_eval.config import CodeConfig, EvaluateConfig
from headwater_eval.items import read
from headwater_eval.locate import Found
from headwater_eval.models import ModelSpec
from headwater_eval.programs import check_python
from headwater_eval.sandbox.run import Limits, Sandbox
from headwater_eval.tasks import benchmark_task

HUMANEVAL = [  # three of the 164, as published
    {"task_id": "HumanEval/34", "entry_point": "unique", "canonical_solution": "    return sorted(list(set(l)))\n",
     "prompt": '\n\ndef unique(l: list):\n    """Return sorted unique elements in a list\n    >>> unique([5, 3, 5, 2, 3, 3, 9, 0, 123])\n    [0, 2, 3, 5, 9, 123]\n    """\n',  # noqa: E501
     "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate([5, 3, 5, 2, 3, 3, 9, 0, 123]) == [0, 2, 3, 5, 9, 123]\n\n"},  # noqa: E501
    {"task_id": "HumanEval/45", "entry_point": "triangle_area", "canonical_solution": "    return a * h / 2.0\n",
     "prompt": '\n\ndef triangle_area(a, h):\n    """Given length of a side and high return area for a triangle.\n    >>> triangle_area(5, 3)\n    7.5\n    """\n',  # noqa: E501
     "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(5, 3) == 7.5\n    assert candidate(2, 2) == 2.0\n    assert candidate(10, 8) == 40.0\n\n"},  # noqa: E501
    {"task_id": "HumanEval/23", "entry_point": "strlen", "canonical_solution": "    return len(string)\n",
     "prompt": "\n\ndef strlen(string: str) -> int:\n    \"\"\" Return length of given string\n    >>> strlen('')\n    0\n    >>> strlen('abc')\n    3\n    \"\"\"\n",  # noqa: E501
     "test": "\n\nMETADATA = {\n    'author': 'jt',\n    'dataset': 'test'\n}\n\n\ndef check(candidate):\n    assert candidate('') == 0\n    assert candidate('x') == 1\n    assert candidate('asdasnakj') == 9\n"},  # noqa: E501
]  # fmt: skip
MBPP = [  # in the hub's format
    {"task_id": 11, "text": "Write a function to double a number.", "code": "def twice(n):\r\n    return 2 * n",
     "test_list": ["assert twice(1) == 2", "assert twice(-3) == -6", "assert twice(0) == 0"],
     "test_setup_code": "", "challenge_test_list": []},
    {"task_id": 12, "text": "Write a function to sum the values of a tree.",
     "code": "class Node:\n    def __init__(self, value, below=()):\n        self.value, self.below = value, below\n"
             "def total(node):\n    return node.value + sum(map(total, node.below))",
     "test_list": ["assert total(leaf) == 1", "assert total(root) == 3", "assert total(Node(5)) == 5"],
     "test_setup_code": "leaf = Node(1)\nroot = Node(2, [leaf])", "challenge_test_list": []},
    {"task_id": 600, "text": "Of the training split.", "code": "x = 1", "test_list": ["assert x"] * 3,
     "test_setup_code": "", "challenge_test_list": []},
]  # fmt: skip
SQUARES = {
    "python": """def f_gold ( n ) :
    return n * n

#TOFILL

if __name__ == '__main__':
    param = [(3,), (-2,), (0,)]
    n_success = 0
    for i, parameters_set in enumerate(param):
        if f_filled(*parameters_set) == f_gold(*parameters_set):
            n_success+=1
    print("#Results: %i, %i" % (n_success, len(param)))
""",
    "cpp": """#include <iostream>
#include <vector>
using namespace std;
int f_gold ( int n ) { return n * n; }

//TOFILL

int main() {
    int n_success = 0;
    vector<int> param0 {3,-2,0};
    for(int i = 0; i < param0.size(); ++i)
    {
        if(f_filled(param0[i]) == f_gold(param0[i])) n_success+=1;
    }
    cout << "#Results:" << " " << n_success << ", " << param0.size();
    return 0;
}
""",
    "java": """import java.util. *;
import javafx.util.Pair;
public class SQUARE_OF_A_NUMBER{
static int f_gold ( int n ) { return n * n ; }

//TOFILL

public static void main(String args[]) {
    int n_success = 0;
    List<Integer> param0 = new ArrayList<>();
    param0.add(3); param0.add(-2); param0.add(0);
    for(int i = 0; i < param0.size(); ++i)
    {
        if(f_filled(param0.get(i)) == f_gold(param0.get(i))) n_success+=1;
    }
    System.out.println("#Results:" + n_success + ", " + param0.size());
}
}
""",
}
BOX = Sandbox()
needs_sandbox = pytest.mark.skipif(bool(BOX.missing), reason=f"no whole sandbox here: {BOX.missing}")


def read_items(benchmark: Benchmark, path: Path) -> tuple[list[dict], list]:
    """A package's file."""
    return read(benchmark, Found([path], [], packaged=True))


class Scripted(engine.TemplateLM):
    """A backend of lm-eval's that writes given texts after each prompt, one after the other."""

    def __init__(self, texts: dict[str, list[str]]):
        super().__init__()
        self.texts, self.asked = {prompt: list(answers) for prompt, answers in texts.items()}, []

    def generate_until(self, requests: list, disable_tqdm: bool = True) -> list[str]:
        self.asked += [request.args for request in requests]
        return [self.texts[request.args[0]].pop(0) for request in requests]

    eot_token_id = 0
    tok_encode = loglikelihood_rolling = _loglikelihood_tokens = None


@pytest.fixture
def humaneval(tmp_path) -> list[dict]:
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in [*HUMANEVAL, {"prompt": ""}]).encode()))
    items, rejects = read_items(BENCHMARKS["humaneval"], path)
    assert [reject.row for reject in rejects] == [4]
    return items


@pytest.fixture
def mbpp(tmp_path, write_jsonl) -> list[dict]:
    write_jsonl(tmp_path / "mbpp.jsonl", [*MBPP, "{cut off", {**MBPP[0], "test_list": []}])
    items, rejects = read_items(BENCHMARKS["mbpp"], tmp_path / "mbpp.jsonl")
    assert [reject.row for reject in rejects] == [4, 5]
    return items


def requests(task) -> list[tuple]:
    task.build_all_requests(rank=0, world_size=1)
    return [(instance.args, instance.repeats) for instance in task.instances]


@pytest.mark.parametrize(
    ("name", "file", "rows"), [("humaneval", "humaneval/humaneval", HUMANEVAL), ("mbpp", "mbpp/mbpp", MBPP[:2])]
)
def test_the_prompt_and_the_stop_strings_are_lm_evals(name, file, rows, request, monkeypatch) -> None:
    monkeypatch.setattr("evaluate.load", lambda name: SimpleNamespace(compute=lambda **_: [{"pass@1": 1.0}]))
    stock = engine.load_yaml(engine.STOCK_TASKS / f"{file}.yaml", resolve_func=True)
    stock = {key: value for key, value in stock.items() if key not in ("dataset_path", "dataset_name")}
    stock["custom_dataset"] = lambda **_: {"test": engine.Dataset.from_list(rows)}
    ours = benchmark_task(BENCHMARKS[name], request.getfixturevalue(name))
    asked = [(prompt, options["until"]) for (prompt, options), _ in requests(ours)]
    theirs = [(prompt, options["until"]) for (prompt, options), _ in requests(engine.ConfigurableTask(config=stock))]
    assert asked == theirs and len(asked) == len(rows)


@needs_sandbox
def test_scores_of_several_samples_are_those_counted_by_hand(humaneval) -> None:
    right = [item["answers"][0] for item in humaneval]
    written = {
        humaneval[0]["query"]: [right[0], "    return l\n", right[0], "    return sorted(set(l\n"],  # 2 of 4
        humaneval[1]["query"]: ["    return undefined\n"] * 4,  # 0 of 4
        humaneval[2]["query"]: [right[2]] * 4,  # 4 of 4
    }
    config = CodeConfig(samples=4, k=[1, 2], max_new_tokens=99)
    benchmark, lm = configured(BENCHMARKS["humaneval"], config), Scripted(written)
    part = evaluate.score_benchmark(lm, benchmark, humaneval, [], EvaluateConfig())
    assert len(lm.asked) == 12 and all(
        {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_gen_toks": 99}.items() <= options.items()
        for _, options in lm.asked
    )
    rows, scores = part["rows"], part["scores"]
    assert [row["outcomes"] for row in rows] == [
        ["passed", "wrong: AssertionError", "passed", "error: SyntaxError"],
        ["error: NameError"] * 4,
        ["passed"] * 4,
    ]
    assert [(row["score"], row["category"], row["correct"]) for row in rows] == [
        (0.5, "passed", False), (0.0, "error", False), (1.0, "passed", True)
    ]  # fmt: skip
    # pass@2: of the 6 pairs of item 0, one holds neither of the two that pass
    assert scores["humaneval"]["value"] == pytest.approx(0.5) and scores["humaneval"]["metric"] == "pass@1"
    assert scores["humaneval:pass@2"]["value"] == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert all(row["low"] < row["value"] < row["high"] and row["n"] == 3 for row in scores.values())


@needs_sandbox
def test_rows_go_into_samples_parquet_as_they_are(humaneval, tmp_path) -> None:
    lm = Scripted({item["query"]: [item["answers"][0]] for item in humaneval})
    part = evaluate.score_benchmark(
        lm, configured(BENCHMARKS["humaneval"], CodeConfig()), humaneval, [], EvaluateConfig()
    )
    assert part["scores"]["humaneval"]["value"] == 1.0 and lm.asked[0][1]["do_sample"] is False
    samples.write(tmp_path, part["rows"])
    kept = samples.read(tmp_path)
    assert [(row["outcomes"], row["response"]) for row in kept] == [(["passed"], i["answers"][0]) for i in humaneval]


def test_nothing_runs_unless_it_is_switched_on(humaneval, tmp_path) -> None:
    (tmp_path / "humaneval.jsonl").write_text("".join(json.dumps(item) + "\n" for item in humaneval))
    spec = ModelSpec("native", "none")
    plan = evaluate.Plan(spec, EvaluateConfig(), tmp_path, None, tmp_path / "parts", None)
    why = "it runs programs that the model wrote; run_code: true (--set run_code=true) runs them in a sandbox"
    assert evaluate.questions(plan) == ({}, {"humaneval": why})
    asked, skipped = evaluate.questions(replace(plan, config=EvaluateConfig(run_code=True)))
    assert list(asked) == ["humaneval"] and not skipped
    lm = Scripted({item["query"]: ["    return 1\n"] for item in humaneval})
    with pytest.raises(UserError, match="run_code"):
        evaluate.score_benchmark(lm, BENCHMARKS["humaneval"], humaneval, [], EvaluateConfig())


def test_what_this_machine_cannot_protect_is_told_before_a_model_is_asked(monkeypatch) -> None:
    monkeypatch.setattr("headwater_eval.sandbox.run._plan", lambda *_: {"missing": {"network": "no namespaces"}})
    with pytest.raises(UserError, match=r"cannot protect network.*no namespaces.*code\.accept"):
        configured(BENCHMARKS["humaneval"], CodeConfig())


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("assert sum([1, 2]) == 3", "passed"),
        ("print('x' * 10**6)\nassert __name__ != '__main__'", "passed"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 1\nassert A().x == 1", "passed"),
        ("assert sum([1, 2]) == 4", "wrong: AssertionError"),
        ("def f(:", "error: SyntaxError"),
        ("{}['key']", "error: KeyError"),
        ("def f(): f()\nf()", "error: RecursionError"),
        ("x = bytearray(10**10)", "error: MemoryError"),
        ("class Secret(Exception): pass\nraise Secret('what it knows')", "error: Secret"),
        ("exit = None\nraise SystemExit(0)", "error: SystemExit"),
        ("import os\nos._exit(0)\nassert False", "ended: status 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended: signal 11"),
        ("input()", "error: EOFError"),
        ("\udcff = 1", "error: SyntaxError"),
    ],
)
def test_a_verdict_says_why_and_never_what_was_printed(program: str, line: str) -> None:
    assert check_python(BOX, program).line == line


@needs_sandbox
def test_a_program_that_never_ends_is_a_timeout() -> None:
    assert check_python(Sandbox(Limits(cpu_seconds=1)), "while True: pass").line == "timeout"
    assert check_python(Sandbox(Limits(wall_seconds=1)), "import time\ntime.sleep(99)").line == "timeout"


@needs_sandbox
def test_solutions_pass_their_tests_and_nothing_else_does(humaneval, mbpp) -> None:
    assert [check_humaneval(BOX, item, item["answers"][0]).outcome for item in humaneval] == ["passed"] * 3
    assert check_humaneval(BOX, humaneval[0], "    pass\n").outcome == "wrong"
    assert [check_mbpp(BOX, item, item["answers"][0]).outcome for item in mbpp] == ["passed"] * 2
    assert check_mbpp(BOX, mbpp[0], "def twice(n): return n").outcome == "wrong"


def test_mbpp_is_its_test_split_from_json_lines_and_parquet_alike(mbpp, tmp_path) -> None:
    assert [item["name"] for item in mbpp] == ["11", "12"] and "double a number" in mbpp[0]["text"]
    pq.write_table(pa.Table.from_pylist(MBPP), tmp_path / "mbpp.parquet")
    assert read_items(BENCHMARKS["mbpp"], tmp_path / "mbpp.parquet") == (mbpp, [])


def test_a_damaged_file_is_one_line(tmp_path) -> None:
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-9])
    with pytest.raises(UserError, match=r"HumanEval\.jsonl\.gz: cannot be read"):
        read_items(BENCHMARKS["humaneval"], tmp_path / "HumanEval.jsonl.gz")


# --- TransCoder ---


def transcoder_item(target: str, tmp_path, write_jsonl, **more: str) -> dict:
    source = "int square ( int n ) { return n * n ; }"
    row = {"id": "SQUARE", "source": source, "source_language": "cpp" if target != "cpp" else "java",
           "target_language": target, "test_script": SQUARES[target], **more}  # fmt: skip
    path = tmp_path / f"transcoder_{target}.jsonl"
    write_jsonl(path, [row, {**row, "target_language": "rust"}, {**row, "test_script": "no place"}])
    items, rejects = read_items(BENCHMARKS[f"transcoder_{target}"], path)
    assert [reject.row for reject in rejects] == [2, 3]
    return items[0]


RESPONSES = {
    "python": (["import math\ndef square(n):\n\n    return n ** 2\n\nprint(square(3))", "def s(n):\n  return n*n"],
               ["def square(n):\n    return n + 6", "I cannot translate this."], "def square(n):\n    return m"),
    "cpp": (["int square(int n) { if (n < 0) { n = -n; } return n * n; } // {\nint more() {"],
            ["int square(int n) { return n + 6; }", "no function"], "int square(int n) { return m; }"),
    "java": (["static int square(int n) {\n  String s = \"}\"; return n * n;\n}\n}"],
             ["static int square(int n) { return n + 6; }"], "static int square(int n) { return m; }"),
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("target", ["python", "cpp", "java"])
def test_a_translation_counts_when_all_its_tests_pass(target: str, tmp_path, write_jsonl) -> None:
    if target != "python" and shutil.which({"cpp": "g++", "java": "javac"}[target]) is None:
        pytest.skip(f"no compiler for {target}")
    item = transcoder_item(target, tmp_path, write_jsonl)
    right, wrong, broken = RESPONSES[target]
    assert [check_transcoder(target, BOX, item, text).line for text in right] == ["passed"] * len(right)
    lines = [check_transcoder(target, BOX, item, text).line for text in wrong]
    assert lines == ["wrong: 2 of 3 tests passed", "error: no function"][: len(wrong)]
    assert check_transcoder(target, BOX, item, broken).outcome == ("error" if target == "python" else "compile")


def test_transcoder_asks_for_a_translation_and_stops_before_the_next(tmp_path, write_jsonl) -> None:
    item = transcoder_item("python", tmp_path, write_jsonl)
    (((prompt, options), _),) = requests(benchmark_task(BENCHMARKS["transcoder_python"], [item]))
    assert prompt == (
        "Translate this C++ function to Python.\n\nC++:\nint square ( int n ) { return n * n ; }\n\nPython:\n"
    )
    assert "\nTranslate this " in options["until"]


@needs_sandbox
def test_results_that_the_program_prints_itself_do_not_outlive_an_early_exit(tmp_path, write_jsonl) -> None:
    item = transcoder_item("python", tmp_path, write_jsonl)
    assert check_transcoder("python", BOX, item, "def f(n):\n    raise SystemExit(0)").line == "ended: status 0"


@given(st.text(alphabet="def fg(){}:\n \"'/*int,", max_size=80), st.sampled_from(["python", "cpp", "java"]))
def test_whatever_a_model_writes_a_function_found_in_it_is_whole(text: str, language: str) -> None:
    found = transcoder.first_function(text, language)
    if found and language == "python":
        assert found[0].startswith("def ") and f"{found[1]}" in found[0]
    elif found:
        assert found[0].strip() in text and found[0].rstrip().endswith("}") and found[1] in found[0]


@pytest.mark.parametrize(
    "config", [{"samples": 2, "k": [3]}, {"samples": 4, "temperature": 0}, {"accept": ["everything"]}, {"k": [1, 1]}]
)
def test_a_config_that_cannot_be_is_refused(config) -> None:
    with pytest.raises(ValueError, match=r"between|same|unknown protection|once"):
        CodeConfig(**config)
