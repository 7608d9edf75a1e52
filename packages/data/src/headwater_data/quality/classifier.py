"""classifier: a quality model trained in the pipeline, told apart from raw web what the reference sources are like.

    documents of both sides, chosen and split by hash -> fastText -> Platt's calibration -> AUC, reliability
    the positives once more -> n-gram model for perplexity

DCLM (arXiv 2406.11794, section 4.4) and GPT-3 (arXiv 2005.14165, appendix A) score documents by such a classifier,
CCNet (arXiv 1911.00359, section 4.3) by perplexity under a language model of Wikipedia. Which of the documents are kept
is filter's business.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.optimize import minimize
from scipy.stats import rankdata

from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..config import ClassifierConfig
from ..documents import blocks, draws, named, read_json, work_of
from ..ingest.sandbox import Refused, Sandbox
from .language import load_fasttext, once_a_process
from .ngrams import estimate, sentence, write_arpa

POSITIVE, NEGATIVE = "__label__hq", "__label__raw"
MODEL, SETTINGS, ARPA = "model.bin", "model.json", "positives.arpa"
BINS = 10
DAY, ANY_MEMORY = 86_400.0, 1 << 46
LEAST = 20  # documents a side


@dataclass(frozen=True)
class Sample:
    """Documents of both sides."""

    texts: list[str]
    positive: np.ndarray
    """(documents,) bool."""
    split: np.ndarray
    """(documents,) 0 train, 1 calibrate, 2 test: by work, so that pieces of one stay together."""


def classifier(run: Run) -> None:
    """The stage: documents -> classifier."""
    config: ClassifierConfig = run.config
    sample = draw(run, config)
    train = sample.split == 0
    with tempfile.TemporaryDirectory(dir=run.work) as scratch:
        path = Path(scratch) / "train.txt"
        lines = [
            f"{POSITIVE if positive else NEGATIVE} {text}"
            for text, positive, chosen in zip(sample.texts, sample.positive.tolist(), train.tolist(), strict=True)
            if chosen
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        run.log(f"{len(lines)} documents to train on, {len(sample.texts) - len(lines)} to calibrate and test")
        _train(path, run.out / MODEL, config)
    model = load_fasttext(run.out / MODEL)
    raw = probabilities(model, sample.texts, POSITIVE)
    a, b = fit_platt(raw[sample.split == 1], sample.positive[sample.split == 1])
    settings = {"label": POSITIVE, "max_characters": config.max_characters, "platt": [a, b]}
    write_atomic(run.out / SETTINGS, canonical_json(settings))
    own = [t for t, positive, chosen in zip(sample.texts, sample.positive, train, strict=True) if positive and chosen]
    tables = estimate(own, config.ngram_order, config.ngram_min_count)
    write_arpa(run.out / ARPA, tables)

    test = sample.split == 2
    truth = sample.positive[test]
    before, after = reliability(raw[test], truth), reliability(platt(raw[test], a, b), truth)
    metrics = {
        "documents": {
            side: {"train": int((train & of).sum()), "calibrate": int(((sample.split == 1) & of).sum()),
                   "test": int((test & of).sum())}
            for side, of in (("positive", sample.positive), ("negative", ~sample.positive))
        },
        "auc": round(auc(raw[test], truth), 6),
        "uncalibrated": before, "calibrated": after,
        "ngrams": {str(n + 1): len(table) for n, table in enumerate(tables)},
    }  # fmt: skip
    run.write_metrics(metrics)
    run.log(
        f"AUC {metrics['auc']:.4f} on {int(test.sum())} held-out documents; calibration error "
        f"{before['error']:.4f}, after Platt's scaling {after['error']:.4f}"
    )


def draw(run: Run, config: ClassifierConfig) -> Sample:
    """Choose the documents of both sides and split them, by hash.

    Raises:
        UserError: a side has too few documents.
    """
    frames = []
    columns = ["id", "text", "source", "category", "lang"]
    for block in blocks(run.inputs["documents"]):
        documents = block.read(columns)
        if config.languages:
            documents = documents.filter(pl.col("lang").is_in(list(config.languages)))
        positive, negative = named(config.positives), named(config.negatives)
        documents = documents.filter(positive | negative).select(
            "id", pl.col("text").str.slice(0, config.max_characters), positive=positive
        )
        frames.append(documents.with_columns(key=draws(f"classifier {config.seed}", documents["id"])))
    chosen = pl.concat(
        [
            pl.concat(frames).filter(pl.col("positive") == side).sort("key").head(config.max_documents)
            for side in (True, False)
        ]
    ).sort("key")
    for side, names in ((True, config.positives), (False, config.negatives)):
        if (count := int((chosen["positive"] == side).sum())) < LEAST:
            raise UserError(
                f"classifier: {', '.join(names)} give {count} documents and {LEAST} are needed; "
                f"name other sources in classifier.{'positives' if side else 'negatives'}"
            )
    share = draws(f"split {config.seed}", map(work_of, chosen["id"])).to_numpy() / 2**64
    held = config.heldout_fraction
    split = np.where(share >= held, 0, np.where(share < held / 2, 1, 2))
    sides = chosen["positive"].to_numpy()
    for part, name in ((0, "train"), (1, "calibrate"), (2, "test")):
        if len(set(sides[split == part].tolist())) < 2:
            raise UserError(
                f"classifier: no document of one side is left to {name}; name sources of more works, or raise "
                "classifier.heldout_fraction"
            )
    return Sample([fasttext_line(t) for t in chosen["text"]], sides, split)


def fasttext_line(text: str) -> str:
    """A text as fastText reads it: one line, lower case, no word that looks like a label."""
    return " ".join(text.lower().replace("__label__", "label ").split())


def _train(path: Path, out: Path, config: ClassifierConfig) -> None:
    """Train in a fresh process. With one thread fastText sets a tenth of its input matrix and leaves the rest as the
    memory was (DenseMatrix::uniform); pages that are new to a process are zeros, used ones can hold anything: other
    results each time, or NaN."""
    with Sandbox(f"{__name__}:train_file", DAY, ANY_MEMORY) as worker:
        (answer,) = worker.map([(str(path), str(out), config.model_dump())])
    if isinstance(answer, Refused):
        raise UserError(f"classifier: fastText could not train ({answer.rule}: {answer.detail})")


def train_file(task: tuple[str, str, dict]) -> None:
    """Train on a file of labelled lines and save the model: (file, model, settings)."""
    import fasttext

    path, out, config = task
    model = fasttext.train_supervised(
        input=path, lr=config["lr"], dim=config["dim"], epoch=config["epochs"], wordNgrams=config["word_ngrams"],
        bucket=config["buckets"], minCount=2, thread=1, seed=config["seed"], verbose=0,
    )  # fmt: skip
    model.save_model(out)


def probabilities(model, lines: list[str], label: str) -> np.ndarray:
    """The probability that fastText gives `label` for each line: (lines,) float64, 0 where it is none of the labels."""
    found = np.zeros(len(lines))
    for i, line in enumerate(lines):
        labels, values = model.predict(line, k=-1)
        found[i] = dict(zip(labels, values, strict=True)).get(label, 0.0)
    return np.clip(found, 0.0, 1.0)


def platt(p: np.ndarray, a: float, b: float) -> np.ndarray:
    """Platt's scaling (Platt 1999): the logit times a plus b."""
    q = np.clip(p, 1e-6, 1 - 1e-6)
    return 1 / (1 + np.exp(-(a * np.log(q / (1 - q)) + b)))


def fit_platt(p: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """a and b of greatest likelihood, with a weak prior at the identity so that perfect separation stays finite.

    By BFGS: the loss is smooth and convex. A Nelder-Mead simplex that starts at offset 0 is flat there and stops early.
    """

    def loss(ab: np.ndarray) -> float:
        q = np.clip(platt(p, *ab), 1e-12, 1 - 1e-12)
        fit = -np.mean(np.where(truth, np.log(q), np.log(1 - q)))
        return float(fit + 1e-6 * ((ab[0] - 1) ** 2 + ab[1] ** 2))

    a, b = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return round(float(a), 6), round(float(b), 6)


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties half (Mann and Whitney 1947)."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def reliability(scores: np.ndarray, truth: np.ndarray) -> dict:
    """Expected calibration error (Guo et al. 2017, section 2; ten equal bins), Brier score, and the bins."""
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = {
        f"from_{i / BINS:.1f}": {"documents": int(here.sum()), "score": round(float(scores[here].mean()), 4),
                                 "positive": round(float(truth[here].mean()), 4)}
        for i in range(BINS) if (here := places == i).any()
    }  # fmt: skip
    error = sum(b["documents"] * abs(b["score"] - b["positive"]) for b in bins.values()) / len(scores)
    return {"error": round(error, 6), "brier": round(float(np.mean((scores - truth) ** 2)), 6), "bins": bins}


@once_a_process
def load_language_model(arpa: Path):
    """An n-gram model as kenlm's; None where kenlm is not installed."""
    try:
        import kenlm
    except ModuleNotFoundError:
        return None
    quiet = kenlm.Config()
    quiet.show_progress, quiet.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    return kenlm.Model(str(arpa), quiet)


class QualityScorer:
    """Scores documents by a trained classifier: calibrated probability, and perplexity where kenlm is installed."""

    def __init__(self, model: Path, settings: dict, arpa: Path | None = None):
        self.model, self.settings = load_fasttext(model), settings
        self.language_model = load_language_model(arpa) if arpa is not None else None

    @classmethod
    def of_artefact(cls, folder: Path) -> QualityScorer:
        """The scorer of a classifier artefact."""
        return cls(folder / MODEL, read_json(folder / SETTINGS), folder / ARPA)

    def score(self, texts: list[str]) -> pl.Series:
        """quality_score of each text, f64 in [0, 1]."""
        cut = self.settings.get("max_characters")
        found = probabilities(self.model, [fasttext_line(t[:cut]) for t in texts], self.settings["label"])
        if "platt" in self.settings:
            found = platt(found, *self.settings["platt"])
        return pl.Series("quality_score", found, pl.Float64)

    def perplexity(self, texts: list[str]) -> pl.Series:
        """Perplexity a word of each text under the positives' n-gram model, f64; null without kenlm or words."""
        found = []
        for text in texts:
            line = sentence(text[: self.settings.get("max_characters")])
            found.append(self.language_model.perplexity(line) if self.language_model and line else None)
        return pl.Series("perplexity", found, pl.Float64)
