"""The classifier of toxic text: trained, adopted, measured, and read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from headwater_eval._contracts import manifest as artefacts
from headwater_eval.cli import main
from headwater_eval.toxicity import judge
from headwater_eval.toxicity.train import fit_platt, measured

FOUL = ["rotten", "stupid", "vile", "nasty", "filthy"]
FINE = ["kind", "green", "quiet", "early", "round"]
NOUNS = ["people", "houses", "letters", "dogs", "songs", "roads", "hats", "clouds", "books", "kings"]
NONE = "labelled={perspective: null, reddit: null, encyclopaedia: null, everyday: null, instructions: null}"
CONFIG = ('labelled={scored: {files: "marked/*.jsonl", text: comment.text, score: share}, '
          "prose: {files: prose.csv, text: line, label: 0, delimiter: ;, words: 5}, "
          "other: {files: other.csv, text: text, score: toxic, train: false}}")  # fmt: skip


@pytest.fixture
def labelled(tmp_path: Path, write_artefact) -> Path:
    """Two hundred marked lines, prose without a mark, and a source that is only measured on."""
    folder = tmp_path / "sources"
    (folder / "a" / "marked").mkdir(parents=True)
    rows = [{"comment": {"text": f"these {adjective} {noun} {number}"}, "share": share}
            for adjectives, share in ((FOUL, 0.9), (FINE, 0.1))
            for adjective in adjectives for noun in NOUNS for number in ("one", "two")]  # fmt: skip
    rows += [{"comment": {"text": ""}, "share": 1}, {"comment": {"text": "no share"}, "share": None}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "a" / "marked" / "x.jsonl").write_text(text + "not json\n")
    prose = "".join(f"the {noun} of the {other} were here;x\n" for noun in NOUNS for other in NOUNS)
    (folder / "a" / "prose.csv").write_text("line;n\n" + prose)
    other = "".join(f"{word} and more,{label}\n" for words, label in ((FOUL, 1), (FINE, 0)) for word in words)
    (folder / "a" / "other.csv").write_text("text,toxic\n" + other)
    return write_artefact(folder, "sources")


def train(sources: Path, folder: Path, *options: str, config: str = CONFIG) -> int:
    where = ["--out", str(folder / "toxicity"), "--work", str(folder / "work")]
    given = ["--set", NONE, "--set", config] if config else []
    return main(["toxicity", "--in", str(sources), *where, *given, *options])


def train_fasttext(lines: list[str], out: Path) -> None:
    """From word vectors that are given: fastText itself leaves most of its first weights as the memory was."""
    import fasttext

    words = sorted({"</s>", *(word for line in lines for word in line.split()[1:])})
    vectors = np.random.default_rng(0).uniform(-0.1, 0.1, (len(words), 8))
    table = [f"{word} {' '.join(f'{x:.5f}' for x in row)}" for word, row in zip(words, vectors, strict=True)]
    out.with_suffix(".vec").write_text("\n".join([f"{len(words)} 8", *table]) + "\n")
    out.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    given = str(out.with_suffix(".vec"))
    options = {"dim": 8, "epoch": 20, "lr": 0.5, "thread": 1, "verbose": 0, "pretrainedVectors": given}
    fasttext.train_supervised(str(out.with_suffix(".txt")), **options).save_model(str(out))


def test_it_learns_what_is_marked_and_says_how_well_entry_by_entry(labelled: Path, tmp_path: Path) -> None:
    assert train(labelled, tmp_path) == 0
    metrics = json.loads((tmp_path / "toxicity" / "metrics.json").read_text())
    assert metrics["auc"] == 1 and metrics["by_entry"]["other"]["n"] == 10 and metrics["by_entry"]["other"]["auc"] == 1
    assert metrics["by_entry"]["prose"]["auc"] is None and metrics["by_entry"]["prose"]["false_positives"] == 0
    toxic = judge.load(tmp_path / "toxicity")
    scores = toxic.scores(["such vile birds", "such quiet birds", "  "])
    assert scores[0] > 0.5 > scores[1] and scores[2] == 0
    assert toxic.about() == {"classifier": artefacts.manifest_hash(tmp_path / "toxicity")[:16], "classifier_auc": 1.0}


def test_the_same_texts_give_the_same_bytes(labelled: Path, tmp_path: Path) -> None:
    assert train(labelled, tmp_path / "a") == train(labelled, tmp_path / "b") == 0
    a, b = (artefacts.manifest_hash(tmp_path / name / "toxicity") for name in "ab")
    assert a == b


def test_measures_are_scikit_learns_and_the_calibration_error_is_by_hand() -> None:
    scores = np.array([0.05, 0.05, 0.95, 0.95])
    labels = np.array([0.0, 1.0, 1.0, 1.0])
    found = measured(scores, labels)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, scores))
    assert found["calibration_error"] == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert found["recall"] == pytest.approx(2 / 3, abs=1e-6) and found["false_positives"] == 0


def test_platts_scaling_finds_the_distortion_that_labels_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 20_000)
    labels = (rng.random(20_000) < judge.platt(p, 0.6, -0.8)).astype(float)
    assert fit_platt(p, labels) == (pytest.approx(0.6, abs=0.06), pytest.approx(-0.8, abs=0.06))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "labelled={scored: {files: nowhere.csv}}"], "data for scored not found: no source"),
        (["--set", "labelled={other: {files: other.csv, score: none}}"], "no row has a text in text"),
        (["--set", "labelled={scored: null}"], "both kinds are needed"),
        (["--set", "adopt=missing"], "0 files or folders of the sources end in missing"),
        (["--set", "adopt=prose.csv"], "neither a Hugging Face folder"),
    ],
)
def test_what_cannot_be_trained_is_one_line(labelled: Path, tmp_path: Path, capsys, options, says) -> None:
    assert train(labelled, tmp_path, *options) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "toxicity").exists()


def test_a_fasttext_model_is_adopted_and_measured(labelled: Path, tmp_path: Path, write_artefact, capsys) -> None:
    pytest.importorskip("fasttext", reason="the classifier is a fastText model")
    lines = [f"__label__{side} these {word} {noun}" for side, words in (("bad", FOUL), ("ok", FINE)) for word in words
             for noun in NOUNS] * 5  # fmt: skip
    train_fasttext(lines, tmp_path / "mine.bin")
    shutil.copyfile(tmp_path / "mine.bin", labelled / "a" / "mine.bin")
    write_artefact(labelled, "sources")
    assert train(labelled, tmp_path, "--set", "adopt=mine.bin") == 1
    assert "the label of toxic text is to be one of __label__bad, __label__ok" in capsys.readouterr().err
    assert train(labelled, tmp_path, "--set", "adopt=mine.bin", "--set", "label=__label__bad") == 0
    scores = judge.load(tmp_path / "toxicity").scores(["these VILE\nbirds", "these quiet birds"])
    assert scores[0] > 0.5 > scores[1]


def test_a_hugging_face_classifier_is_adopted_from_safetensors_only(
    labelled: Path, tmp_path: Path, write_artefact, capsys
) -> None:
    transformers = pytest.importorskip("transformers", reason="the classifier is a Hugging Face folder")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "these", *FOUL, *FINE, *NOUNS]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16, id2label={0: "fine", 1: "toxic"},
                                     label2id={"fine": 0, "toxic": 1})  # fmt: skip
    folder = labelled / "a" / "mine"
    transformers.set_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_artefact(labelled, "sources")
    assert train(labelled, tmp_path, "--set", "adopt=mine", "--set", "label=toxic") == 0
    texts = ["these vile dogs", "kind", "these round books and songs"]
    found = judge.load(tmp_path / "toxicity").scorer.probabilities(texts)
    for text, p in zip(texts, found, strict=True):
        expected = model(**tokenizer(text, return_tensors="pt")).logits.double().softmax(-1)[0, 1].item()
        assert p == pytest.approx(expected, abs=1e-5)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    write_artefact(labelled, "sources")
    assert train(labelled, tmp_path / "again", "--set", "adopt=mine", "--set", "label=toxic") == 1
    assert "pickled weights are not read" in capsys.readouterr().err


def test_a_classifier_of_the_data_package_can_be_read(tmp_path: Path, write_artefact) -> None:
    """Its model.json names no engine: fastText, lower-case lines, Platt's scaling."""
    fasttext = pytest.importorskip("fasttext", reason="the classifier is a fastText model")
    folder = tmp_path / "classifier"
    folder.mkdir()
    train_fasttext(["__label__hq a good text", "__label__raw buy now"] * 20, tmp_path / "model.bin")
    shutil.copyfile(tmp_path / "model.bin", folder / "model.bin")
    model = fasttext.load_model(str(folder / "model.bin"))
    settings = {"label": "__label__raw", "max_characters": 100, "platt": [2.0, 0.5]}
    (folder / "model.json").write_text(json.dumps(settings))
    (folder / "metrics.json").write_text(json.dumps({"auc": 0.7}))
    read = judge.load(write_artefact(folder, "classifier"))
    raw = dict(zip(*model.predict("buy now", k=-1), strict=True))["__label__raw"]
    assert read.scores(["Buy now"])[0] == pytest.approx(judge.platt(np.array([min(raw, 1)]), 2.0, 0.5)[0])
