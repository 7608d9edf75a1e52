"""Judges: what gives a text its probability of being toxic, on this machine.

A judge is read from a classifier artefact (contracts/schemas/classifier.md): a linear model over hashed n-grams, a
fastText model, or a Hugging Face folder for sequence classification. A text that cannot be scored stops the run: a
failure that counts as "not toxic" would be a good score.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .._contracts.errors import UserError
from .._contracts.manifest import manifest_hash

SETTINGS = "model.json"
ENGINES = ("linear", "fasttext", "transformers")


class Scorer(Protocol):
    """Texts -> raw probabilities."""

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """Probability of the toxic label of each text: float64 [n]."""


@dataclass(frozen=True)
class Judge:
    """A scorer with its name and what is known of its error."""

    scorer: Scorer
    sha256: str
    """Of the artefact's manifest: which classifier a toxicity score rests on."""
    measured: dict[str, Any]
    """Its metrics.json: area under the ROC curve and calibration on labelled texts that it was not trained on."""
    platt: tuple[float, float] = (1.0, 0.0)
    max_characters: int | None = None

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Calibrated probability of toxicity of each text: float64 [n]; an empty text is 0 by definition.

        Raises:
            UserError: the classifier gave no probability for a text.
        """
        found = np.zeros(len(texts))
        said = [i for i, text in enumerate(texts) if text.strip()]
        if said:
            # Half a surrogate pair, which JSON can hold, is no text that a scorer can encode.
            whole = [texts[i][: self.max_characters].encode("utf-8", "replace").decode() for i in said]
            raw = np.asarray(self.scorer.probabilities(whole), float)
            if raw.shape != (len(said),) or not np.all((raw >= 0) & (raw <= 1)):
                wrong = int(len(said) if raw.shape != (len(said),) else (~((raw >= 0) & (raw <= 1))).sum())
                raise UserError(
                    f"the classifier gave no probability for {wrong} of {len(said)} texts; an unscored text counts as "
                    "an error, never as harmless: use another classifier"
                )
            found[said] = platt(raw, *self.platt)
        return found

    def about(self) -> dict[str, Any]:
        """What a score says of the classifier it rests on."""
        return {"classifier": self.sha256[:16], "classifier_auc": self.measured.get("auc")}


def load(folder: Path) -> Judge:
    """The judge of a classifier artefact.

    Raises:
        UserError: a folder without readable settings, or an engine that is not installed.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
        engine = settings.get("engine", "fasttext")
        measured = json.loads((folder / "metrics.json").read_text("utf-8"))
        slope, offset = settings.get("platt", (1.0, 0.0))
    except (OSError, ValueError, AttributeError, TypeError) as e:
        raise UserError(f"{folder}: no classifier that can be read ({e}); make it by headwater-eval toxicity") from None
    scorer = open_engine(engine, folder, settings.get("label"))
    return Judge(scorer, manifest_hash(folder), measured, (slope, offset), settings.get("max_characters"))


def open_engine(engine: str, folder: Path, label: str | None) -> Scorer:
    """The scorer of a folder: linear (weights.safetensors), fasttext (model.bin) or transformers.

    Raises:
        UserError: an unknown engine, an engine that is not installed, a label that the model lacks.
    """
    if engine == "linear":
        from .linear import LinearModel  # scikit-learn, which takes seconds to import

        return LinearModel.load(folder)
    if engine == "fasttext":
        return FastText(folder / "model.bin", label)
    if engine == "transformers":
        return Transformers(folder, label)
    raise UserError(f"{folder}: the classifier's engine is {engine}; known are {', '.join(ENGINES)}")


def platt(p: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Platt's scaling (Platt 1999): slope times the logit plus offset, as a probability."""
    if (slope, offset) == (1.0, 0.0):
        return p
    q = np.clip(p, 1e-6, 1 - 1e-6)
    return 1 / (1 + np.exp(-(slope * np.log(q / (1 - q)) + offset)))


class FastText:
    """A supervised fastText model: the probability of one label for one line of lower-case text."""

    def __init__(self, path: Path, label: str | None):
        try:
            import fasttext
        except ImportError:
            raise UserError(f"{path}: reading it needs fasttext; pip install fasttext-numpy2-wheel") from None
        try:
            self.model = fasttext.load_model(str(path))
        except ValueError as e:
            raise UserError(f"{path}: no fastText model that can be read ({e})") from None
        labels = self.model.get_labels()
        if label not in labels:
            raise UserError(f"{path}: the label of toxic text is to be one of {', '.join(sorted(labels)[:8])}")
        self.label = label

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """Float64 [n]; fastText's float32 may exceed 1 by a rounding error, which is cut."""
        found = np.zeros(len(texts))
        for i, text in enumerate(texts):
            line = " ".join(text.lower().replace("__label__", "label ").split())
            labels, values = self.model.predict(line, k=-1)
            found[i] = dict(zip(labels, values, strict=True)).get(self.label, 0.0 if labels else np.nan)
        return np.where(found > 1, np.minimum(found, np.where(found < 1.001, 1.0, found)), found)


class Transformers:
    """A Hugging Face sequence classifier: softmax over its labels, or a sigmoid each where it is multi-label."""

    def __init__(self, folder: Path, label: str | None, batch: int = 16):
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError:
            raise UserError(f"{folder}: reading it needs transformers and torch; pip install transformers") from None
        self.torch, self.batch = torch, batch
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as e:
            raise UserError(f"{folder}: no sequence classifier in safetensors ({str(e).splitlines()[0]})") from None
        labels = {name: i for i, name in self.model.config.id2label.items()}
        if label not in labels:
            raise UserError(f"{folder}: the label of toxic text is to be one of {', '.join(sorted(labels)[:8])}")
        self.at = labels[label]
        self.many = self.model.config.problem_type == "multi_label_classification"

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """Float64 [n], in batches of similar length."""
        found = np.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with self.torch.no_grad():
            for start in range(0, len(order), self.batch):
                at = order[start : start + self.batch]
                inputs = self.tokenizer([texts[i] for i in at], return_tensors="pt", padding=True, truncation=True)
                logits = self.model(**inputs).logits.double()
                p = logits.sigmoid() if self.many else logits.softmax(-1)
                found[at] = p[:, self.at].numpy()
        return found
