"""The benchmarks: `catalogue.yaml` says what each is, and the modules named here add readers and own definitions."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from . import bias, bigbench, code_tasks, inference, packages, reading, repairs, truthfulqa
from ._contracts.errors import UsageError
from .benchmark import Benchmark
from .probes.benchmark import BENCHMARKS as PROBES

CODE: dict[str, dict[str, Any]] = {}
for _more in (
    packages.FILES,
    bigbench.READERS,
    truthfulqa.DEFINITIONS,
    reading.DEFINITIONS,
    inference.DEFINITIONS,
    {name: {"repair": config} for name, config in repairs.REPAIRS.items()},
):
    for _name, _fields in _more.items():
        CODE.setdefault(_name, {}).update(_fields)

SHOTS_FROM = {
    "gpt3": "Brown et al. 2020, table H.1",
    "mmlu": "Hendrycks et al. 2021",
    "lm-eval": "lm-eval's YAML",
    "llama2": "Touvron et al. 2023, section 2.3",
    "none": "zero-shot; nobody's custom",
}


CATALOGUE = Path(__file__).with_name("catalogue.yaml")


def described(path: Path = CATALOGUE) -> list[Benchmark]:
    """The benchmarks of a catalogue file, families member by member, in the file's order."""
    entries = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [
        _benchmark(name, fields, family)
        for family, entry in entries.items()
        for name, fields in _members(family, entry)
    ]


def _members(family: str, entry: dict) -> list[tuple[str, dict]]:
    """Names and fields of an entry's benchmarks; the files of `each` are looked up without importing lm-eval (4 s)."""
    if "members" in entry:
        return [(name, {**entry, **fields}) for name, fields in entry["members"].items()]
    if "each" not in entry:
        return [(family, entry)]
    spec = find_spec("lm_eval")
    assert spec is not None and spec.origin is not None, "lm-eval is a dependency"
    tasks = Path(spec.origin).parent / "tasks"
    members = []
    for path in sorted(tasks.glob(entry["each"])):
        at = {"stem": path.stem, "subject": path.stem.removeprefix("mmlu_")}
        named = {"hub": [part.format(**at) for part in entry["hub"]], "stock": str(path.relative_to(tasks)),
                 "file": entry.get("file", "").format(**at)}  # fmt: skip
        members.append((entry["name"].format(**at), {**entry, **entry.get("but", {}).get(path.stem, {}), **named}))
    return members


def _benchmark(name: str, fields: dict, family: str) -> Benchmark:
    hub, config, split, shots_split = [
        part.format(path=fields.get("path"), config=fields.get("config")) for part in fields.get("hub", [""] * 4)
    ]
    shots, source = fields["shots"]
    known: dict[str, Any] = {"file": fields.get("file", ""), "read": None, **CODE.get(family, {}), **CODE.get(name, {})}
    return Benchmark(
        name,
        fields["measures"],
        metric=fields["metric"],
        kind=fields.get("kind", "choice"),
        stock=fields.get("stock", ""),
        licence=fields.get("licence", ""),
        home=fields.get("home", ""),
        family="" if family == name else family,
        suites=tuple(fields["suites"]),
        shots=shots,
        shots_from=SHOTS_FROM.get(source, source),
        hub=hub,
        hub_config=config,
        split=split,
        shots_split=shots_split,
        words=tuple(fields.get("words", ())),
        cluster=fields.get("cluster", ""),
        category=fields.get("category", ""),
        shots_within=fields.get("shots_within", ""),
        **known,
    )


BENCHMARKS = {
    benchmark.name: benchmark for benchmark in (*described(), *code_tasks.BENCHMARKS, *bias.BENCHMARKS, *PROBES)
}
SUITES = sorted({suite for benchmark in BENCHMARKS.values() for suite in benchmark.suites} | {"full"})


def suite(name: str) -> list[Benchmark]:
    """The benchmarks of a suite, in the catalogue's order; `full` holds every one.

    Raises:
        UsageError: no suite of that name.
    """
    if name not in SUITES:
        raise UsageError(f"unknown suite {name}; known are {', '.join(SUITES)}")
    return [benchmark for benchmark in BENCHMARKS.values() if name == "full" or name in benchmark.suites]


def unknown_task(name: str) -> str:
    """What to say of a name that no benchmark has."""
    near = difflib.get_close_matches(name, BENCHMARKS, 3)
    guess = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"unknown task {name}{guess} `headwater-eval tasks --all` lists them"
