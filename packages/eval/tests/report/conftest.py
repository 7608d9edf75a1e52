"""A whole small run, written through the contract's own writer with real hashes from artefact to artefact."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwater_eval._contracts.manifest import SCHEMAS, Manifest, manifest_hash, verify, write
from headwater_eval.report.stage import STAGE
from headwater_eval.toxicity.linear import LinearModel

# artefact -> package, stage, inputs (name of the input -> artefact)
MADE = {
    "sources": ("data", "collect", {}),
    "items": ("eval", "items", {"sources": "sources"}),
    "extracted": ("data", "extract", {"sources": "sources"}),
    "edited": ("data", "clean", {"documents": "extracted"}),
    "classifier": ("data", "classifier", {"documents": "edited"}),
    "signals": ("data", "signals", {"documents": "edited", "sources": "sources", "classifier": "classifier"}),
    "filtered": ("data", "filter", {"documents": "signals"}),
    "deduped": ("data", "dedup", {"documents": "filtered"}),
    "clean": ("data", "decontaminate", {"documents": "deduped", "items": "items"}),
    "corpus": ("data", "mix", {"documents": "clean"}),
    "tokenizer": ("tokenizer", "train", {"corpus": "corpus"}),
    "tokens": ("tokenizer", "encode", {"corpus": "corpus", "tokenizer": "tokenizer"}),
    "comparison": ("tokenizer", "compare", {"corpus": "corpus", "bpe": "tokenizer"}),
    "card": ("data", "card", {"extracted": "extracted", "corpus": "corpus", "tokenizer": "tokenizer"}),
    "plan": ("model", "plan", {"tokens": "tokens"}),
    "checkpoint": ("model", "pretrain", {"tokens": "tokens", "plan": "plan", "tokenizer": "tokenizer"}),
    "base": ("model", "export", {"checkpoint": "checkpoint", "tokenizer": "tokenizer"}),
    "compressor": ("eval", "compressor", {"corpus": "corpus"}),
    "instructions": ("align", "instructions", {"sources": "sources"}),
    "preferences": ("align", "preferences", {"sources": "sources"}),
    "sft": ("align", "sft", {"model": "base", "instructions": "instructions"}),
    "reward": ("align", "reward", {"model": "sft", "preferences": "preferences", "instructions": "instructions"}),
    "ppo": ("align", "ppo", {"policy": "sft", "reward": "reward", "instructions": "instructions", "tokens": "tokens"}),
    "dpo": ("align", "dpo", {"model": "sft", "preferences": "preferences"}),
    "ppo-ptx": (
        "align",
        "ppo",
        {"policy": "sft", "reward": "reward", "instructions": "instructions", "tokens": "tokens"},
    ),
    "outcome": (
        "align",
        "outcome",
        {
            "sft": "sft",
            "reward": "reward",
            "instructions": "instructions",
            "base": "base",
            "dpo": "dpo",
            "ppo": "ppo",
            "ppo-ptx": "ppo-ptx",
        },
    ),
    "toxicity": ("eval", "toxicity", {"sources": "sources"}),
    "unseen": ("align", "unseen", {"instructions": "instructions", "base": "base", "sft": "sft"}),
    "results-base": ("eval", "evaluate", {"model": "base", "items": "items", "corpus": "corpus"}),
    "results-sft": ("eval", "evaluate", {"model": "sft", "items": "items", "corpus": "corpus"}),
    "results-dpo": ("eval", "evaluate", {"model": "dpo", "items": "items", "corpus": "corpus"}),
    "results-ppo": ("eval", "evaluate", {"model": "ppo", "items": "items", "corpus": "corpus"}),
    "results-ppo-ptx": ("eval", "evaluate", {"model": "ppo-ptx", "items": "items", "corpus": "corpus"}),
    "leakage": ("eval", "leakage", {"model": "base", "corpus": "corpus"}),
    "paired": ("eval", "compare", {"base": "results-base", "sft": "results-sft"}),
}
ORDER = ["sources", "items", "extracted", "edited", "classifier", "signals", "filtered", "deduped", "clean",
         "corpus", "tokenizer", "card", "tokens", "comparison", "plan", "checkpoint", "base", "compressor",
         "instructions", "preferences", "sft", "reward", "dpo", "ppo", "ppo-ptx", "toxicity",
    "unseen", "outcome", "results-base",
         "results-sft", "results-dpo", "results-ppo", "results-ppo-ptx", "leakage", "paired"
]  # fmt: skip


class SmallRun:
    """Folders of a run under `root`; `text` is what documents, prompts and completions hold."""

    def __init__(self, root: Path, text: str = "All human beings are born free.", name: str = "prose"):
        self.root, self.text, self.name = root, text, name
        for artefact in ORDER:
            folder = root / artefact
            folder.mkdir(parents=True)
            _FILL.get(artefact, _figures)(self, folder, artefact)
            self.seal(artefact)
        for artefact, (package, stage, _) in MADE.items():
            self.record(f"{stage}-{artefact}", package, stage)

    def seal(self, artefact: str) -> None:
        """(Re)write the manifest of what lies in the folder."""
        package, stage, inputs = MADE[artefact]
        folder = self.root / artefact
        (folder / "manifest.json").unlink(missing_ok=True)
        hashes = {given: manifest_hash(self.root / maker) for given, maker in inputs.items()}
        kind = dict(_kinds())[artefact]
        config = {"seed": 1, "nested": {"note": _utf8(self.name)}}
        made = Manifest(kind, SCHEMAS[kind], f"headwater-{package}", "0.1.0", stage, config, hashes)
        write(folder, made)
        verify(folder, (kind,))

    def record(self, name: str, package: str, stage: str) -> None:
        """A run record as the frame writes it."""
        runs = self.root / "runs"
        runs.mkdir(exist_ok=True)
        cost = {"attempts": 1, "wall_s": 2.5, "cpu_s": 2.0, "peak_rss_mb": 100.0, "version": "0.1.0"}
        (runs / f"{name}.json").write_text(json.dumps({"stage": stage, "package": f"headwater-{package}", **cost}))

    def arguments(self, *without: str) -> list[str]:
        """`--in` for every artefact but those named, and where the records lie."""
        given = [a for name in ORDER if name not in without for a in ("--in", f"{name}={self.root / name}")]
        return [*given, "--set", f"records={self.root / 'runs'}"]


def _kinds() -> list[tuple[str, str]]:
    return [(name.removesuffix("?"), kinds[0]) for name, kinds in STAGE.reads.items()]


def _utf8(text: str) -> str:
    """What Parquet and a manifest can hold: no unpaired surrogates, which JSON Lines may bring."""
    return text.encode("utf-8", "replace").decode()


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _figures(run: SmallRun, folder: Path, artefact: str) -> None:
    _json(folder / "metrics.json", {"train": 90, "heldout": 10, "by_source": {run.name: {"train": 90, "heldout": 10}}})


def _instructions(run: SmallRun, folder: Path, artefact: str) -> None:
    _figures(run, folder, artefact)
    made = json.loads((folder / "metrics.json").read_text())
    _json(folder / "metrics.json", made | {"mixture": {"by_member": {"boolq": {"rows": 150}, "sums": {"rows": 90}}}})


def _sources(run: SmallRun, folder: Path, artefact: str) -> None:
    told = {"role": "corpus", "category": "prose", "licence": run.name, "language": "en", "kind": "pypi",
            "version": "1.2", "records": 400, "bytes": 1_234_567}  # fmt: skip
    _json(folder / "prose/source.json", {"name": run.name, **told})


def _items(run: SmallRun, folder: Path, artefact: str) -> None:
    row = {"items": 200, "rejects": 1, "source": run.name, "licence": "MIT", "measures": run.text, "chance": 0.5}
    _json(folder / "metrics.json", {"items": 200, "rejects": 1, "by_task": {"boolq": row}})


def _documents(run: SmallRun, folder: Path, artefact: str) -> None:
    before, after = {"extracted": (410, 400), "edited": (400, 400), "signals": (400, 400), "filtered": (400, 300),
                     "deduped": (300, 260), "clean": (260, 255)}[artefact]  # fmt: skip
    sizes = {"documents_in": before, "documents_out": after, "bytes_in": 1000 * before, "bytes_out": 1000 * after}
    gone = {"documents": before - after, "bytes": 1000 * (before - after)}
    rules = {} if artefact in ("edited", "signals") else {f"{artefact}_rule": gone}
    _json(folder / "metrics.json", {**sizes, "by_source": {run.name: sizes}, "by_rule": rules})
    if rules:
        _rejects(folder / "rejects.parquet", run, f"{artefact}_rule", before - after)


def _rejects(path: Path, run: SmallRun, rule: str, n: int) -> None:
    frame = {"id": [f"{rule}-{i}" for i in range(n)], "stage": ["stage"] * n, "rule": [rule] * n,
             "value": [0.25 + i for i in range(n)], "threshold": [0.5] * n, "source": [_utf8(run.name)] * n,
             "text": [f"{_utf8(run.text)} {i}" for i in range(n)]}  # fmt: skip
    pl.DataFrame(frame).write_parquet(path)


def _corpus(run: SmallRun, folder: Path, artefact: str) -> None:
    sizes = {"documents_in": 255, "documents_out": 250, "bytes_in": 255_000, "bytes_out": 250_000}
    _json(folder / "metrics.json", {**sizes, "by_source": {run.name: sizes}, "by_rule": {}})
    for split, n in (("train", 30), ("heldout", 10)):
        (folder / split).mkdir()
        frame = {"id": [f"{split}-{i}" for i in range(n)], "text": ["x" * 100] * n, "source": [_utf8(run.name)] * n,
                 "lang": ["en"] * n, "licence": [_utf8(run.name)] * n}  # fmt: skip
        pl.DataFrame(frame).write_parquet(folder / split / "part-00000.parquet")


def _tokenizer(run: SmallRun, folder: Path, artefact: str) -> None:
    fit = {"documents": 10, "tokens": 900, "bytes_per_token": 3.5, "tokens_per_word": 1.4}
    whole = {**fit, "single_byte_share": 0.1, "by_source": {run.name: fit}}
    figures = {"vocabulary": 2048, "learned": 2026, "named": 6, "reserved": 16, "unused_in_sample": 89}
    _json(folder / "metrics.json", {**figures, "longest_tokens": [run.name], "sample": whole, "heldout": whole})


def _tokens(run: SmallRun, folder: Path, artefact: str) -> None:
    split = {"documents": 30, "tokens": 4_860_437, "bytes": 14_627_453, "bytes_per_token": 3.01}
    _json(folder / "metrics.json", {"vocabulary": 2048, "train": split, "heldout": split})


def _comparison(run: SmallRun, folder: Path, artefact: str) -> None:
    text = {"bytes_per_token": 3.5, "tokens_per_word": 1.4, "unknown_share": 0.0, "vocabulary_used_share": 0.9,
            "renyi_efficiency": 0.5}  # fmt: skip
    known = {"stage": "train", "vocabulary": 2048, "heldout": text, "judge": {"bits_per_byte": 1.987}}
    other = {"stage": "adopt", "vocabulary": 50304, "heldout": text, "judge": None}
    _json(folder / "comparison.json", {"tokenizers": {"bpe": known, run.name: other}})
    (folder / "page.html").write_text("<p>the comparison's page</p>")


def _plan(run: SmallRun, folder: Path, artefact: str) -> None:
    model = {"layers": 2, "hidden": 128, "kv_heads": None}
    _json(folder / "plan.json", {"flops": 9e12, "model": model, "reasons": {"epochs": 0.4}, "steps": 485})


def _checkpoint(run: SmallRun, folder: Path, artefact: str) -> None:
    rng = random.Random(1)
    rows: list[dict] = []
    for step in range(1001):
        loss = 2.4 + 5.2 * math.exp(-step / 90) + rng.gauss(0, 0.07)
        rows.append(
            {"step": step, "tokens": step * 4096, "loss": loss, "lr": 0.006, "grad_norm": abs(rng.gauss(1, 0.3))}
        )
        if step % 100 == 0:
            rows.append({"step": step, "heldout_loss": loss + 0.1,
                         "heldout_bits_per_byte": 0.65 * (loss + 0.1)})  # fmt: skip
    _lines(folder / "log.jsonl", rows)
    _json(folder / "metrics.json", {"loss": 2.41, "heldout_bits_per_byte": 1.63})


def _export(run: SmallRun, folder: Path, artefact: str) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(128))
    if artefact == "base":
        return
    rng = random.Random(2)
    rows = [
        {"step": s, "loss": 2 * math.exp(-s / 40) + rng.random() / 9, "kl": 0.01 * s, "clipped": 0.1}
        for s in range(120)
    ]
    _lines(folder / "log.jsonl", [*rows, {"step": 119, "heldout_loss": 0.4}])
    _json(folder / "metrics.json", {"train_loss": 0.3, "steps": 120, **_MEASURED.get(artefact, {})})


_MEASURED = {
    "reward": {"accuracy": 0.7, "accuracy_low": 0.62, "accuracy_high": 0.77, "length_only_accuracy": 0.55},
}  # fmt: skip


def _outcome(run: SmallRun, folder: Path, artefact: str) -> None:
    def row(reward: float, kl: float) -> dict:
        gain = reward - 0.02
        return {"reward": reward, "reward_low": reward - 0.1, "reward_high": reward + 0.1, "kl": kl,
                "reward_gain": gain, "reward_gain_low": gain - 0.18, "reward_gain_high": gain + 0.18, "win_rate": 0.6,
                "answer_tokens": 12.5, "finished": 0.75, "total": reward - 0.02 * kl}  # fmt: skip

    models = {"base": row(-0.5, 40.0), "sft": row(0.02, 0.0), "best-of-16": row(1.1, 1.8), "best-of-4": row(0.7, 0.64),
              "ppo": row(0.95, 4.2), "ppo-ptx": row(0.9, 3.1), "dpo": row(0.3, 6.5)}  # fmt: skip
    _json(folder / "metrics.json", {"prompts": 64, "prompts_too_long": 1, "models": models})
    rows = ["best-of-N,4,0.64,0.8,0.7", "best-of-N,16,1.8,1.34,1.1", "ppo,0,4.2,2.05,0.95"]
    rows += ['"ppo, training",1,0.01,0.1,0.05', '"ppo, training",9,4,2,0.9']
    (folder / "curve.csv").write_text("\n".join(["run,at,kl,sqrt_kl,reward", *rows]) + "\n")
    _lines(folder / "samples.jsonl", [
        {"id": i, "prompt": f"{run.text} {i}", "model": name, "answer": run.text, "reward": 0.125, "kl": 2.5,
         "total": 0.075, "tokens": 7, "finished": True}
        for i in range(9) for name in models
    ])  # fmt: skip


def _unseen(run: SmallRun, folder: Path, artefact: str) -> None:
    def row(right: int) -> dict:
        return {"n": 80, "right": right, "accuracy": right / 80, "low": right / 80 - 0.1, "high": right / 80 + 0.1,
                "chance": 0.5, "majority": 0.5, "balanced": 0.5, "same": 0.75}  # fmt: skip

    change = {"n": 80, "groups": 70, "difference": 0.125, "low": 0.025, "high": 0.225, "wrong_to_right": 14,
              "right_to_wrong": 4}  # fmt: skip
    cluster = {"models": {"base": row(40), "sft": row(50)}, "against_before": {"sft": change}}
    _json(folder / "metrics.json", {"questions": 80, "before": "base", "by_cluster": {"natural_language": cluster}})


def _toxicity(run: SmallRun, folder: Path, artefact: str) -> None:
    texts = ["I hate all of you", "you are stupid", "what a nice day", "thank you very much"]
    LinearModel.train(texts, np.array([1.0, 1.0, 0.0, 0.0]), 1.0).save(folder)
    _json(folder / "model.json", {"engine": "linear"})
    _json(folder / "metrics.json", {"auc": 0.875})


def _compressor(run: SmallRun, folder: Path, artefact: str) -> None:
    best = {
        "metric": "bits_per_byte",
        "value": 1.9,
        "n": 10,
        "kind": "text",
        "train_bytes": 3000,
        "heldout_bytes": 1000,
    }
    _json(folder / "metrics.json", {"ppmd-8": best, "heldout": {**best, "compressor": "ppmd-8"}})


def _results(run: SmallRun, folder: Path, artefact: str) -> None:
    shift = {"results-base": 0.0, "results-sft": 0.02}.get(artefact, 0.03)

    def row(value: float, kind: str, chance: float | None) -> dict:
        value += shift
        return {"metric": "acc", "value": value, "low": value - 0.05, "high": value + 0.05, "n": 200,
                "chance": chance, "kind": kind, "heldout_bytes": 1000}  # fmt: skip

    scores = {"boolq": row(0.52, "choice", 0.5), "boolq:acc_norm": row(0.5, "choice", 0.5),
              "piqa": row(0.57, "choice", 0.5), "average": row(0.54, "average", 0.5),
              "crows": row(0.51, "bias", 0.5), "crows:antistereo": row(0.47, "bias", 0.5),
              "nq_open": {**row(0.125, "text", None), "metric": "exact_match"},
              "winobias": row(0.11, "harm", 0.0), "winobias:pro": row(0.6, "harm", 0.5),
              "probes": row(0.3, "probe", 0.25), "probes:negation": row(0.45, "probe", 0.25),
              "truthfulqa_mc2": row(0.44, "alignment", 0.45),
              **{f"truthfulqa_mc2:{c}": row(0.4, "alignment", 0.5) for c in "ABCDEFG"},
              "bigbench_hhh_alignment_multiple_choice": row(0.375, "alignment", 0.5),
              "bigbench_hhh_alignment_multiple_choice:honest": row(0.3, "alignment", 0.5),
              "humaneval": {**row(0.015, "code", None), "metric": "pass@1"},
              "bold": {**row(0.2, "harm", None), "classifier": "c0ffee", "classifier_auc": 0.8356},
              "heldout": row(1.65, "text", None), f"heldout:{run.name}": row(1.7, "text", None)}  # fmt: skip
    _json(folder / "metrics.json", scores)
    prompts = [("plain", "doc-1", run.text), ("chat", "question-0", None)]
    _lines(folder / "generations.jsonl", [
        {"id": i, "format": form, "source": run.name, "prompt": run.text, "completion": run.text * 2,
         "reference": reference, "tokens": 9, "finished": i == "doc-1"} for form, i, reference in prompts
    ])  # fmt: skip


def _leakage(run: SmallRun, folder: Path, artefact: str) -> None:
    def row(value: float, n: int, chance: float | None = None) -> dict:
        return {"metric": "m", "value": value, "stderr": 0.01, "low": value - 0.01, "high": value + 0.01, "n": n,
                "chance": chance, "kind": "leakage"}  # fmt: skip

    scores = {"membership": row(0.517, 40, 0.5), "membership:min_k": row(0.523, 40, 0.5),
              "membership:zlib": row(0.512, 40, 0.5), "membership:gap": row(0.0625, 40, 0.0),
              "private": row(0.0375, 80), "private:email": row(0.0125, 80)}  # fmt: skip
    _json(folder / "metrics.json", scores)
    (folder / "index.html").write_text("<p>leakage's own page</p>")


def _paired(run: SmallRun, folder: Path, artefact: str) -> None:
    row = {"difference": {"value": 0.021, "stderr": 0.01, "low": 0.001, "high": 0.042, "n": 200},
           "up": 17, "down": 13, "same": 170, "test": "McNemar", "p": 0.58466, "p_holm": 0.58466}  # fmt: skip
    aim = {**row, "difference": {**row["difference"], "value": -0.0625}, "p_holm": 0.01}
    pair = {"before": "base", "after": run.name, "tasks": {"boolq": row, "truthfulqa_mc2": aim}, "average": None}
    task = {"n": 200, "left_out": {}, "other_prompts": 0}
    _json(folder / "comparison.json", {"pairs": [pair], "tasks": {"boolq": task, "truthfulqa_mc2": task}})
    (folder / "index.html").write_text("<p>the comparison's own page</p>")


_FILL: dict[str, Callable[[SmallRun, Path, str], None]] = {
    "sources": _sources, "items": _items, "instructions": _instructions,
    "corpus": _corpus, "tokenizer": _tokenizer, "tokens": _tokens,
    "comparison": _comparison, "plan": _plan, "leakage": _leakage, "paired": _paired,
    "checkpoint": _checkpoint, "compressor": _compressor,
    **dict.fromkeys(("extracted", "edited", "signals", "filtered", "deduped", "clean"), _documents),
    **dict.fromkeys(("base", "sft", "reward", "dpo", "ppo", "ppo-ptx"), _export), "outcome": _outcome,
    **dict.fromkeys((name for name in MADE if name.startswith("results-")), _results),
    "toxicity": _toxicity, "unseen": _unseen,
}  # fmt: skip


@pytest.fixture
def small_run() -> type[SmallRun]:
    """`small_run(folder, text, name)` writes a run."""
    return SmallRun
