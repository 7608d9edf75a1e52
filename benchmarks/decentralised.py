"""Local (DiLoCo) and asynchronous SGD beside synchronous data parallelism, at equal tokens and updates; with ranks that
sleep as well.

Text: what Python says of itself: the topics of pydoc and the docstrings of the standard library, 2 MB, cut into 512 ids
by a BPE of its own; every 20th document is held out. Model: 2 layers of 64, 172,352 parameters, context 64, float32;
AdamW, cosine; 400 steps of 8 sequences, 204,800 tokens. Each mode has the best of three peak learning rates by the
first seed's held-out loss. An asynchronous worker computes whole batches; replicas and data-parallel ranks split them.
Arrivals are seeded where losses are compared, real where seconds are.
"""

from __future__ import annotations

import ast
import json
import os
import statistics
import sysconfig
import tempfile
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.frame import Row, lower_is_better
from headwater_model import launch

PROCESSES, VOCABULARY = 5, 512
STEPS, SLEEPY_STEPS, SEEDS = 400, 120, (1, 2, 3)
RATES = (0.001, 0.0025, 0.005)
Case = dict[str, Any]
Result = dict[str, Any]


def run(quick: bool) -> list[Row]:
    """A row a mode; the losses are means over seeds."""
    steps, sleepy, seeds, rates = (20, 8, SEEDS[:1], RATES[:2]) if quick else (STEPS, SLEEPY_STEPS, SEEDS, RATES)
    modes = [{**mode, "steps": steps} for mode in _learning()]
    sleeping = [{**mode, "steps": sleepy, "lr": RATES[0]} for mode in _sleeping()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _tokenize(folder)
        tried = _train(folder, [{**mode, "lr": lr, "seed": seeds[0]} for mode in modes for lr in rates])
        tried_of = [tried[i : i + len(rates)] for i in range(0, len(tried), len(rates))]
        losses = [[one["loss"] for one in found] for found in tried_of]
        best = [found.index(min(found)) for found in losses]
        more = [{**mode, "lr": rates[i], "seed": s} for mode, i in zip(modes, best, strict=True) for s in seeds[1:]]
        others = _train(folder, more + sleeping)
    rest = len(seeds) - 1
    results = [
        [found[i], *others[n * rest : (n + 1) * rest]] for n, (found, i) in enumerate(zip(tried_of, best, strict=True))
    ]
    rows = _losses(modes, [rates[i] for i in best], results)
    return rows + _seconds(sleeping, others[len(more) :])


def _train(folder: Path, cases: list[Case]) -> list[Result]:
    """All runs, one after the other, in one launch."""
    (folder / "cases.json").write_text(json.dumps(cases))
    os.environ["OMP_NUM_THREADS"] = "1"
    launch.run("benchmarks.decentralised_work", [str(folder)], PROCESSES, folder / "logs")
    return json.loads((folder / "found.json").read_text())


def _learning() -> list[Case]:
    cases: list[Case] = [{"mode": "synchronous", "ranks": ranks} for ranks in (1, 2, 4)]
    for ranks in (2, 4):
        cases += [{"mode": "local", "ranks": ranks, "settings": {"inner_steps": inner}} for inner in (5, 20, 50)]
    mean = {"inner_steps": 20, "outer_lr": 1.0, "outer_momentum": 0.0}
    cases.append({"mode": "local", "ranks": 4, "settings": mean})
    for ranks in (2, 4):
        for bound in (0, 2, 8):
            cases.append(_asynchronous(ranks, staleness=bound, arrivals="seeded"))
    cases.append(_asynchronous(4, staleness=8, arrivals="seeded", damp=True))
    return cases


def _sleeping() -> list[Case]:
    modes: list[Case] = [
        {"mode": "synchronous", "ranks": 4},
        {"mode": "local", "ranks": 4, "settings": {"inner_steps": 20}},
        *(_asynchronous(4, staleness=bound) for bound in (0, 2, 8, None)),
    ]
    return [{**mode, "sleeps": sleeps} for sleeps in ("", "one", "all") for mode in modes]


def _asynchronous(ranks: int, **settings: Any) -> Case:
    return {"mode": "asynchronous", "ranks": ranks, "settings": settings}


def _name(case: Case) -> str:
    settings = case.get("settings", {})
    bound = settings.get("staleness")
    return {
        "synchronous": f"synchronous, {case['ranks']} rank{'s' * (case['ranks'] > 1)}",
        "local": f"local, {case['ranks']} replicas, H {settings.get('inner_steps')}"
        + (", plain mean" if settings.get("outer_lr") == 1.0 else ""),
        "asynchronous": f"asynchronous, {case['ranks']} workers, bound {'none' if bound is None else bound}"
        + (", damped" if settings.get("damp") else ""),
    }[case["mode"]]


def _losses(modes: list[Case], rates: list[float], results: list[list[Result]]) -> list[Row]:
    first = statistics.mean(result["loss"] for result in results[0])
    rows = []
    for mode, lr, found in zip(modes, rates, results, strict=True):
        losses = [result["loss"] for result in found]
        how = f"lr {lr}; seeds: {', '.join(f'{loss:.3f}' for loss in losses)}; {found[0]['megabytes']:.1f} MB a rank"
        if mode["mode"] == "asynchronous":
            means, largest = zip(*(result["staleness"] for result in found), strict=True)
            how += f"; staleness {statistics.mean(means):.2f}, at most {max(largest):g}"
        mean = statistics.mean(losses)
        rows.append(lower_is_better(_name(mode), "nats held-out", mean, "synchronous, 1 rank", "", first, None, how))
    return rows


def _seconds(cases: list[Case], found: list[Result]) -> list[Row]:
    whose = {"": "nobody sleeps", "one": "one rank sleeps 40 ms a sequence", "all": "each rank sleeps at 5% of batches"}
    rows = []
    for case, result in zip(cases, found, strict=True):
        base = next(r for c, r in zip(cases, found, strict=True) if c["sleeps"] == case["sleeps"])
        how = f"{case['steps']} steps, once"
        if case["mode"] == "asynchronous":
            how += f"; the last worker did {result['slowest']} of the batches, staleness {result['staleness'][0]:.2f}"
        work = f"{_name(case)}, {whose[case['sleeps']]}"
        rows.append(
            lower_is_better(work, "s wall", result["seconds"], "synchronous, 4 ranks", "", base["seconds"], None, how)
        )
    return rows


def _tokenize(folder: Path) -> None:
    """train.npy and heldout.npy, a stream of ids each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    documents = _documents()
    heldout, train = documents[::20], [text for i, text in enumerate(documents) if i % 20]
    tokenizer.train_from_iterator(train, trainer)
    for name, texts in (("train", train), ("heldout", heldout)):
        ids = [i for encoding in tokenizer.encode_batch(texts) for i in encoding.ids]
        np.save(folder / f"{name}.npy", np.array(ids, dtype=np.uint16))


def _documents() -> list[str]:
    found = [text for _, text in sorted(topics.topics.items())]
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*library.glob("*.py"), *library.glob("[a-z]*/*.py")]):
        if path.parent.name in ("site-packages", "test", "idlelib", "lib2to3"):
            continue
        try:
            nodes = ast.walk(ast.parse(path.read_text()))
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
        if text := "\n\n".join(filter(None, texts)):
            found.append(text)
    return found
