"""The probes as benchmarks: a file of classes -> items, lm-eval tasks, and a pass rate a class.

`probes`: the model passes where it finds the right continuation likelier than every wrong one, which a small model can
do long before it can write an answer (minimal pairs, as in Warstadt et al. 2020, BLiMP, arXiv:1912.00582).
`probes_written`: the model passes where it writes the right answer, after solved examples.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from .._contracts.errors import UserError
from ..benchmark import Benchmark, Item, Row, Scores
from ..readers import Reject, Rows
from ..scores import score_row
from ..statistics import wilson
from .families import FAMILIES, Probe

PACKAGED = Path(__file__).with_name("probes.yaml")
CHOICE, WRITTEN = "probes", "probes_written"
TRIES = 50
"""Draws for each probe of a family before it counts as exhausted."""


def classes(path: Path) -> tuple[int, dict[str, Any]]:
    """Seed and classes of a file, after the packaged ones (a file named `probes.yaml` may hold further classes only).

    Raises:
        UserError: no YAML, or none with classes.
    """
    told = _load(path)
    packaged = _load(PACKAGED) if told.get("packaged", True) else {}
    found = {**packaged.get("classes", {}), **told.get("classes", {})}
    seed = told.get("seed", packaged.get("seed", 0))
    return seed, {name: entry for name, entry in found.items() if entry is not None}


def read(path: Path, written: bool = False) -> Rows:
    """Items of a file of probes: those scored by likelihood, or those whose answer is written.

    The items' `text` is empty: a probe tests a behaviour, and training text may say that seven and five are twelve.
    """
    seed, found = classes(path)
    row = 0
    for name, entry in found.items():
        try:
            probes = made(name, entry, seed)
            shots = entry.get("written", 0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as e:
            row += 1
            what = f"no {e.args[0]}" if isinstance(e, KeyError) else str(e)
            yield Reject(row, f"class {name}: {what}", json.dumps(entry, ensure_ascii=True, default=str)[:2000])
            continue
        shown, asked = probes[:shots], probes[shots:]
        if written and shots:
            before = "".join(f"{probe.prompt} {probe.right}\n\n" for probe in shown)
            for probe in asked:
                row += 1
                yield row, {"text": "", "query": before + probe.prompt, "answers": [probe.right], "category": name}
        elif not written:
            for probe in asked:
                row += 1
                choices = sorted([probe.right, *probe.wrong])
                yield row, {"text": "", "query": probe.prompt, "choices": choices, "label": choices.index(probe.right),
                            "category": name}  # fmt: skip


def made(name: str, entry: dict[str, Any], seed: int) -> list[Probe]:
    """The probes of a class, no two alike: the same for the same entry and seed.

    Raises:
        ValueError, TypeError, KeyError: the entry is not as the head of probes.yaml says.
    """
    if "family" not in entry:
        given = [Probe(str(i["prompt"]), str(i["right"]), _listed(i["wrong"])) for i in entry["items"]]
        return [_checked(probe) for probe in given]
    if entry["family"] not in FAMILIES:
        raise ValueError(f"unknown family {entry['family']}; known are {', '.join(FAMILIES)}")
    rng = random.Random(f"{seed}/{name}")
    wanted = int(entry["items"]) + int(entry.get("written", 0))
    probes: dict[tuple[str, str], Probe] = {}
    for _ in range(TRIES * wanted):
        probe = _checked(FAMILIES[entry["family"]](rng, **entry.get("options", {})))
        probes.setdefault((probe.prompt, probe.right), probe)
        if len(probes) == wanted:
            return list(probes.values())
    raise ValueError(f"makes only {len(probes)} different probes, not {wanted}")


def choice_task() -> dict[str, Any]:
    """Log-likelihood of each continuation after the prompt and a space."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["query"],
        "doc_to_choice": lambda doc: doc["choices"],
        "doc_to_target": lambda doc: doc["label"],
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def written_task() -> dict[str, Any]:
    """What the model writes up to the end of the line is the answer, but for case, blanks and a full stop."""
    return {
        "output_type": "generate_until",
        "doc_to_text": lambda doc: doc["query"],
        "doc_to_target": lambda doc: doc["answers"][0],
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 32},
        "process_results": lambda doc, given: {"exact_match": float(same(given[0], doc["answers"][0]))},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def same(given: str, expected: str) -> bool:
    """Whether a written answer is the expected one: case, blanks and a full stop at the end do not matter."""
    first = given.strip().split("\n")[0]
    return " ".join(first.split()).rstrip(". ").casefold() == " ".join(expected.split()).casefold()


def pass_rates(benchmark: Benchmark, items: list[Item], rows: list[Row]) -> Scores:
    """Share of probes passed: all, and by class, each with Wilson's interval and what guessing would pass.

    Of `kind` probe, so that no average over benchmarks takes them in.
    """
    guess = {item["id"]: 1 / len(item["choices"]) if "choices" in item else None for item in items}
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["category"]].append(row)
    scores = {}
    for name, part in [("", rows), *sorted(parts.items())]:
        chances = [guess[row["doc_id"]] for row in part]
        known = [value for value in chances if value is not None]
        chance = round(sum(known) / len(known), 6) if known else None
        estimate = wilson(sum(bool(row["correct"]) for row in part), len(part))
        key = f"{benchmark.name}:{name}" if name else benchmark.name
        scores[key] = score_row(benchmark.metric, estimate, len(part), chance, "probe")
    return scores


def _probe_benchmark(name: str, measures: str, metric: str, kind: str, own: Callable[[], dict]) -> Benchmark:
    return Benchmark(
        name, measures, "probes.yaml", partial(read, written=name == WRITTEN), metric, kind=kind, own=own,
        scores=pass_rates, licence="Apache-2.0", home="headwater_eval/probes/probes.yaml", suites=("probes",),
    )  # fmt: skip


BENCHMARKS = (
    _probe_benchmark(CHOICE, "expected behaviours, class by class, by likelihood", "acc", "choice", choice_task),
    _probe_benchmark(WRITTEN, "expected behaviours, class by class, written out", "exact_match", "text", written_task),
)


def _load(path: Path) -> dict[str, Any]:
    try:
        told = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(e).split())}") from None
    if not isinstance(told, dict) or not isinstance(told.get("classes", {}), dict):
        raise UserError(f"{path}: a mapping with `classes` is needed; see {PACKAGED.name} of headwater-eval")
    return told


def _listed(value: Any) -> list[str]:
    return [str(part) for part in (value if isinstance(value, list) else [value])]


def _checked(probe: Probe) -> Probe:
    if not probe.prompt or probe.prompt != probe.prompt.rstrip():
        raise ValueError("a prompt is empty, or ends with a blank")
    answers = [probe.right, *probe.wrong]
    if len(answers) < 2 or len(set(answers)) < len(answers) or not all(a == a.strip() and a for a in answers):
        raise ValueError(f"after {probe.prompt!r}: continuations differ, are not empty and have no blanks around")
    return probe


def describe() -> Iterator[tuple[str, str, int]]:
    """(class, what it expects, how many probes) of the packaged file."""
    seed, found = classes(PACKAGED)
    for name, entry in found.items():
        yield name, entry["expects"], len(made(name, entry, seed))
