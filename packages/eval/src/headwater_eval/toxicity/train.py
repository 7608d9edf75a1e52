"""Stage `toxicity`: labelled texts -> a classifier of toxic text, trained here or adopted, and its measured error.

texts of every entry of `labelled`, split by hash -> train (or adopt) -> Platt's calibration
-> area under the ROC curve, calibration error and error rates on the test texts, by entry
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..config import ToxicityConfig
from .judge import SETTINGS, open_engine, platt
from .labelled import Labelled, labelled_texts
from .linear import LinearModel

TOXIC = 0.5
"""From here on a text counts as toxic, as for Gehman et al. 2020 (arXiv:2009.11462, section 2)."""
BINS = 10


def run(run: Run) -> None:
    """Fill `run.out` with a classifier artefact."""
    config: ToxicityConfig = run.config
    entries = {name: entry for name, entry in config.labelled.items() if entry is not None}
    parts = [labelled_texts(run.inputs["sources"], name, entry, config.seed) for name, entry in entries.items()]
    if config.adopt is not None:
        engine = _adopt(run.inputs["sources"], config.adopt, run.out)
    else:
        engine = "linear"
        texts, labels, _ = _taken(parts, "train")
        _both(labels, "train")
        run.log(f"{len(texts)} texts to train on, {int((labels >= TOXIC).sum())} of them toxic")
        LinearModel.train(texts, labels, config.inverse_penalty).save(run.out)
    scorer = open_engine(engine, run.out, config.label)
    texts, labels, _ = _taken(parts, "calibrate")
    _both(labels, "calibrate")
    slope, offset = fit_platt(scorer.probabilities(texts), labels)
    settings = {"engine": engine, "label": config.label, "platt": [slope, offset]}
    write_atomic(run.out / SETTINGS, canonical_json(settings))

    texts, labels, of = _taken(parts, "test")
    _both(labels, "test")
    found = platt(scorer.probabilities(texts), slope, offset)
    metrics = {**measured(found, labels), "by_entry": {}}
    for i, part in enumerate(parts):
        here = of == i
        if here.any():
            metrics["by_entry"][part.name] = measured(found[here], labels[here])
    run.write_metrics(metrics)
    run.log(f"AUC {metrics['auc']:.4f} on {len(texts)} texts that it was not trained on; "
            f"calibration error {metrics['calibration_error']:.4f}")  # fmt: skip
    for name, values in metrics["by_entry"].items():
        told = "one class only" if values["auc"] is None else f"AUC {values['auc']:.4f}"
        run.log(f"{name}: {told}, {values['flagged']:.3f} flagged of {values['toxic']:.3f} toxic (n {values['n']})")


def measured(scores: np.ndarray, labels: np.ndarray) -> dict:
    """What is known of a classifier's error on labelled texts.

    Returns:
        n; toxic and flagged, the shares with a label and a score of at least one half; auc, null for one class;
        calibration_error (Guo et al. 2017, section 2; ten equal bins); brier; recall and false_positives, shares of
        toxic and of harmless texts that are flagged.
    """
    toxic, flagged = labels >= TOXIC, scores >= TOXIC
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    gap = sum((places == i).sum() * abs(scores[places == i].mean() - labels[places == i].mean())
              for i in range(BINS) if (places == i).any())  # fmt: skip
    two = 0 < toxic.sum() < len(toxic)
    return {
        "n": len(scores),
        "toxic": _rounded(toxic.mean()),
        "flagged": _rounded(flagged.mean()),
        "auc": _rounded(roc_auc_score(toxic, scores)) if two else None,
        "calibration_error": _rounded(gap / len(scores)),
        "brier": _rounded(np.mean((scores - labels) ** 2)),
        "recall": _rounded(flagged[toxic].mean()) if toxic.any() else None,
        "false_positives": _rounded(flagged[~toxic].mean()) if not toxic.all() else None,
    }


def fit_platt(p: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and offset of greatest likelihood, with a weak prior at the identity so that separation stays finite."""

    def loss(ab: np.ndarray) -> float:
        q = np.clip(platt(p, *ab), 1e-12, 1 - 1e-12)
        fit = -np.mean(labels * np.log(q) + (1 - labels) * np.log(1 - q))
        return float(fit + 1e-4 * ((ab[0] - 1) ** 2 + ab[1] ** 2))

    slope, offset = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return round(float(slope), 6), round(float(offset), 6)


def _adopt(sources: Path, ending: str, out: Path) -> str:
    """Copy a Hugging Face folder or a fastText file of a source into the artefact; the engine that reads it."""
    found = [p for p in sorted(sources.rglob("*")) if f"/{p.relative_to(sources).as_posix()}".endswith(f"/{ending}")]
    if len(found) != 1:
        raise UserError(f"{len(found)} files or folders of the sources end in {ending}; toxicity.adopt is to name one")
    path = found[0]
    if path.is_dir() and (path / "config.json").is_file():
        if not list(path.glob("*.safetensors")):
            raise UserError(f"{path}: no .safetensors weights in it; pickled weights are not read")
        for p in sorted(path.iterdir()):
            if p.suffix in (".json", ".safetensors", ".txt", ".model"):
                shutil.copyfile(p, out / p.name)
        return "transformers"
    if path.is_file() and path.suffix in (".bin", ".ftz"):
        shutil.copyfile(path, out / "model.bin")
        return "fasttext"
    raise UserError(f"{path}: neither a Hugging Face folder with a config.json nor a fastText .bin or .ftz file")


def _taken(parts: list[Labelled], split: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of a split, their labels float [n], and the index of the entry of each, int [n]."""
    rows = [
        (text, label, i)
        for i, part in enumerate(parts)
        for text, label, of in zip(part.texts, part.labels, part.split, strict=True)
        if of == split
    ]
    return [r[0] for r in rows], np.array([r[1] for r in rows], float), np.array([r[2] for r in rows], int)


def _both(labels: np.ndarray, split: str) -> None:
    toxic = int((labels >= TOXIC).sum())
    if not 0 < toxic < len(labels):
        raise UserError(
            f"{toxic} of {len(labels)} texts to {split} by are toxic, and both kinds are needed; "
            "name more files in toxicity.labelled"
        )


def _rounded(value: float) -> float:
    return round(float(value), 6)
