"""`dvc repro` at scale smoke: every artefact whole, linked to its inputs, and nothing runs twice."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import polars as pl
import yaml
from tokenizers import Tokenizer

from headwater_data._contracts import manifest as artefacts
from tests.conftest import dvc, environment


def folders(tree: Path) -> list[Path]:
    return [*sorted(p for p in (tree / "artefacts").iterdir() if p.is_dir()), tree / "report"]


def test_every_artefact_verifies(smoke: Path) -> None:
    made = [artefacts.verify(folder) for folder in folders(smoke)]
    by_people = {"review", "completions", "labelsheet", "labels"}  # what people judge, and what they saved
    assert {m.kind for m in made} == set(artefacts.SCHEMAS) - by_people, "a kind that no stage makes, or of no kind"


def test_every_artefact_is_traceable_to_the_sources_by_its_manifests_alone(smoke: Path) -> None:
    known = {artefacts.manifest_hash(folder): folder.name for folder in folders(smoke)}
    for folder in folders(smoke):
        for name, digest in artefacts.read(folder).inputs.items():
            assert digest in known, f"{folder.name}: its input {name} is none of the artefacts at hand"

    def sources_of(digest: str) -> set[str]:
        name = known[digest]
        folder = smoke / "report" if name == "report" else smoke / "artefacts" / name
        inputs = artefacts.read(folder).inputs.values()
        return {name} if not inputs else set().union(*(sources_of(i) for i in inputs))

    assert sources_of(artefacts.manifest_hash(smoke / "report")) == {"sources"}


def test_no_artefact_holds_a_path_of_this_machine(smoke: Path) -> None:
    for folder in folders(smoke):
        text = (folder / artefacts.NAME).read_text()
        assert str(smoke) not in text and str(Path.home()) not in text, folder.name


def test_every_stage_left_a_record_of_its_cost(smoke: Path) -> None:
    stages = yaml.safe_load((smoke / "dvc.yaml").read_text())["stages"]
    stages = {name: stage for name, stage in stages.items() if "foreach" not in stage}  # rounds: there are none
    named = {name for stage in stages.values() for name in stage["outs"] if name.startswith("runs/")}
    assert len(named) >= len(stages) - 2  # report and model card read the records
    for path in (smoke / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        assert record["wall_s"] > 0 and record["peak_rss_mb"] > 10 and record["attempts"] == 1, path.name


def test_nothing_changed_means_nothing_runs(smoke: Path) -> None:
    out = dvc(smoke, "repro").stdout
    assert "Running stage" not in out and "Data and pipelines are up to date" in out


def test_another_run_of_the_data_stages_gives_the_same_bytes(smoke: Path, tmp_path: Path) -> None:
    """Extract, clean, signals and filter again, in another folder: what was published is a function of its inputs."""
    steps = [
        ("extract", ["sources=sources"], "extracted"),
        ("clean", ["documents=extracted"], "edited"),
        ("classifier", ["documents=edited"], "classifier"),
        ("signals", ["documents=edited", "sources=sources", "classifier=classifier"], "signals"),
        ("filter", ["documents=signals"], "filtered"),
    ]
    for stage, inputs, out in steps:
        subprocess.run(
            ["headwater-data", stage, "--params", "params.yaml", "--work", str(tmp_path / "work")]
            + [a for i in inputs for a in ("--in", i.replace("=", f"={smoke / 'artefacts'}/"))]
            + ["--out", str(tmp_path / out)],
            cwd=smoke, env=environment(), check=True,
        )  # fmt: skip
        assert artefacts.manifest_hash(tmp_path / out) == artefacts.manifest_hash(smoke / "artefacts" / out), stage


def test_megatron_reads_the_token_files_and_they_decode_to_the_corpus(smoke: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    tokenizer = Tokenizer.from_file(str(smoke / "artefacts/tokenizer/tokenizer.json"))
    for split in ("train", "heldout"):
        corpus = pl.read_parquet(sorted((smoke / "artefacts/corpus" / split).glob("*.parquet")))
        told = pl.read_parquet(smoke / f"artefacts/tokens/documents/{split}.parquet")
        dataset = IndexedDataset(str(smoke / "artefacts/tokens" / split))
        assert len(dataset) == len(corpus) == len(told) and told["id"].equals(corpus["id"])
        for row in random.Random(1).sample(range(len(dataset)), min(25, len(dataset))):
            *ids, end = dataset[row].tolist()
            assert end == tokenizer.token_to_id("<|endoftext|>") and len(ids) + 1 == told["tokens"][row]
            assert tokenizer.decode(ids, skip_special_tokens=False) == corpus["text"][row]


def test_the_comparison_is_in_the_report(smoke: Path) -> None:
    comparison = json.loads((smoke / "artefacts/comparison/comparison.json").read_text())["tokenizers"]
    assert set(comparison) == {"bpe", "unigram", "wordpiece", "bytes"}
    assert comparison["bpe"]["judge"]["bits_per_byte"] > 0 and comparison["unigram"]["judge"] is None
    page = (smoke / "report/tokenizers.html").read_text()
    assert page == (smoke / "artefacts/comparison/page.html").read_text()
    report = (smoke / "report/report.md").read_text()
    assert all(f"| {name} |" in report for name in comparison) and "tokenizers.html" in report


def test_a_flipped_byte_is_refused_by_the_next_stage_which_names_the_file(smoke_copy: Path) -> None:
    victim = next((smoke_copy / "artefacts/corpus/train").glob("*.parquet"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()  # DVC's copy may be read-only
    victim.write_bytes(content)
    before = artefacts.manifest_hash(smoke_copy / "artefacts/tokenizer")
    done = subprocess.run(
        ["headwater-tokenizer", "train", "--params", "params.yaml", "--in", "corpus=artefacts/corpus"]
        + ["--out", "artefacts/tokenizer"],
        cwd=smoke_copy, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and victim.name in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert artefacts.manifest_hash(smoke_copy / "artefacts/tokenizer") == before, "the old tokenizer must stay"


def test_a_corrupt_cache_object_is_found_by_the_next_stage(smoke_copy: Path) -> None:
    """DVC restores flipped bytes from its cache without a word; our manifests are what notices."""
    folder = smoke_copy / "artefacts/tokens"
    big = max((p for p in folder.iterdir() if p.suffix == ".bin"), key=lambda p: p.stat().st_size)
    digest = artefacts.sha256_file(big)
    objects = (smoke_copy / ".dvc/cache/files/md5").rglob("*")
    stored = next(p for p in objects if p.is_file() and artefacts.sha256_file(p) == digest)
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(content)
    shutil.rmtree(folder)
    assert dvc(smoke_copy, "checkout", "artefacts/tokens", "--force", check=False).returncode == 0
    done = subprocess.run(
        ["headwater-model", "plan", "--params", "params.yaml", "--in", "tokens=artefacts/tokens", "--out", "plan"],
        cwd=smoke_copy, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and big.name in done.stderr


def test_a_changed_threshold_reruns_the_filter_and_not_what_is_before_it(smoke_copy: Path) -> None:
    status = json.loads(dvc(smoke_copy, "status", "--json").stdout)
    assert status == {}
    params = yaml.safe_load((smoke_copy / "params.yaml").read_text())
    params["filter"]["rules"]["gopher_short_doc"] = {"threshold": 100}
    (smoke_copy / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    out = dvc(smoke_copy, "repro", "filter").stdout
    ran = [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")]
    assert ran == ["filter"]


def test_metrics_of_all_stages_come_together(smoke: Path) -> None:
    assert len(json.loads(dvc(smoke, "metrics", "show", "--json").stdout)[""]["data"]) >= 9
