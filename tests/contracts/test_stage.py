"""How a stage runs: fingerprint, publication, what is refused before the start. (test_kill.py kills it.)"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from headwater_counting import cli as counting

from headwater_data._contracts import cli, manifest, stage
from headwater_data._contracts.config import parse
from headwater_data._contracts.errors import UsageError, UserError
from headwater_data._contracts.manifest import Manifest

FILES = ("counts.json", "ballast.bin", "metrics.json", manifest.NAME)


@pytest.fixture
def run(texts, tmp_path):
    """The stage in this process, as `execute` runs it."""

    def execute(out=tmp_path / "out", work=tmp_path / "work", record=None, inputs=None, **values) -> Manifest:
        config = parse(counting.CountConfig, values, "count")
        inputs = {"texts": texts} if inputs is None else inputs
        return stage.execute(counting.STAGE, "headwater-counting", "0.1.0", config, inputs, out, work, record)

    return execute


def made(folder, number: int = 0):
    """A finished artefact whose two files carry the same number."""
    folder.mkdir(parents=True)
    for name in ("first", "second"):
        (folder / name).write_text(str(number))
    manifest.write(folder, Manifest("results", 2, "p", "1", "s", {"number": number}))
    return folder


def content(folder: int, name: str) -> str:
    """A file of a folder that is held open, even when it was renamed meanwhile."""
    with open(os.open(name, os.O_RDONLY, dir_fd=folder)) as f:
        return f.read()


def mark_of(count, *more, **places) -> str:
    done = count(*more, "--dry-run", **places)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["fingerprint"]


def test_the_artefact_verifies_and_names_its_inputs_by_hash(run, texts, tmp_path):
    run(minimum_length=2)
    published = manifest.verify(tmp_path / "out", ("results",))
    assert published.inputs == {"texts": manifest.manifest_hash(texts)}
    assert published.config["minimum_length"] == 2 and published.config["ballast"] == {"bytes": 0, "by": "python"}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {"words": 45}


def test_same_input_and_config_give_the_same_bytes_and_fingerprint_wherever_they_lie(run, texts, tmp_path, count):
    moved = shutil.copytree(texts, tmp_path / "far" / "away" / "texts")
    run()
    run(out=tmp_path / "far" / "out", work=tmp_path / "far" / "work", inputs={"texts": moved})
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "far" / "out" / name).read_bytes()
    assert os.listdir(tmp_path / "work" / "count") == os.listdir(tmp_path / "far" / "work" / "count")


def test_the_fingerprint_changes_with_config_input_and_code_and_with_nothing_else(texts, tmp_path, count, environment):
    first = mark_of(count)
    assert mark_of(count, source=shutil.copytree(texts, tmp_path / "moved"), out=tmp_path / "elsewhere") == first
    assert mark_of(count, "--set", "minimum_length=1") == first  # the default, said aloud
    assert mark_of(count, "--set", "minimum_length=2") != first
    assert mark_of(count, "--set", "maximum_length=.inf") == first != mark_of(count, "--set", "maximum_length=1e9")
    (texts / "text-3.txt").write_text("another text")
    manifest.write(texts, Manifest("documents", 1, "headwater-test", "0.1.0", "write", {}))
    assert mark_of(count) != first


def test_the_code_hash_sees_a_changed_source_through_links_and_no_cache(tmp_path):
    """A checkout carries the contract by a link, a wheel as a folder: both are code that runs, with one hash."""
    code = "from headwater_data._contracts.stage import code_hash; print(code_hash('headwater_toy'))"

    def hash_of(place) -> str:
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(place)},
                              capture_output=True, text=True, check=True)  # fmt: skip
        return done.stdout

    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "rules.py").write_text("limit = 1\n")
    for place in ("checkout", "wheel"):
        package = tmp_path / place / "headwater_toy"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from headwater_toy._contracts import rules\n")
    (tmp_path / "checkout" / "headwater_toy" / "_contracts").symlink_to(shared)
    shutil.copytree(shared, tmp_path / "wheel" / "headwater_toy" / "_contracts")
    before = hash_of(tmp_path / "checkout")
    assert hash_of(tmp_path / "checkout") == before == hash_of(tmp_path / "wheel")  # by now with __pycache__
    (shared / "rules.py").write_text("limit = 2\n")
    changed = hash_of(tmp_path / "checkout")
    (shared / "page.html.j2").write_text("a template decides the result, too")
    assert len({before, changed, hash_of(tmp_path / "checkout")}) == 3


def test_a_finished_stage_is_published_again_without_work(run, tmp_path, capsys):
    run()
    shutil.rmtree(tmp_path / "out")
    capsys.readouterr()
    run()
    assert "complete already" in capsys.readouterr().out
    manifest.verify(tmp_path / "out")


def test_finished_work_that_was_damaged_is_done_again(run, tmp_path):
    run()
    shutil.rmtree(tmp_path / "out")
    kept = next(tmp_path.glob("work/count/*/out/counts.json"))
    kept.write_text("{}")
    run()
    assert json.loads((tmp_path / "out" / "counts.json").read_text())["text-9"] == 9


def test_of_finished_work_only_the_newest_artefact_is_kept(run, tmp_path):
    run()
    assert sorted(p.name for p in tmp_path.glob("work/count/*/*")) == ["costs.json", "lock", "out"]
    run(minimum_length=3)
    assert len(list(tmp_path.glob("work/count/*/out"))) == 1


def test_stages_of_one_name_in_two_packages_leave_each_others_finished_work(run, texts, tmp_path):
    run()
    (first,) = tmp_path.glob("work/count/*/out")
    other = parse(counting.CountConfig, {}, "count")
    stage.execute(
        counting.STAGE, "headwater-data", "0.1.0", other, {"texts": texts}, tmp_path / "other", tmp_path / "work"
    )
    assert first.is_dir() and len(list(tmp_path.glob("work/count/*/out"))) == 2


def test_the_record_says_time_and_memory_and_is_no_part_of_the_artefact(run, tmp_path):
    run(record=tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["attempts"] == 1 and record["wall_s"] > 0 and record["peak_rss_mb"] > 1
    assert sorted(os.listdir(tmp_path / "out")) == sorted(FILES)


def test_a_changed_input_is_refused_before_anything_is_made(run, texts, tmp_path):
    (texts / "text-5.txt").write_text("weir " * 6)
    with pytest.raises(UserError, match=r"text-5\.txt: changed"):
        run()
    assert not (tmp_path / "out").exists() and not (tmp_path / "work").exists()


@pytest.mark.parametrize("target", ["folder", "file"])
def test_an_output_that_is_no_artefact_is_refused_and_left_alone(run, tmp_path, target):
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(UserError, match="no artefact") as fault:
        run(out=precious.parent if target == "folder" else precious)
    assert fault.value.exit_code == 2 and precious.read_text() == "years of work"


def test_an_output_inside_or_around_an_input_is_refused(run, texts):
    for target in (texts, texts / "counts", texts / ".." / "texts"):
        with pytest.raises(UserError, match="would overwrite the input texts|no artefact"):
            run(out=target)
    manifest.verify(texts)


def test_a_reader_never_sees_a_mixture_while_two_writers_publish(tmp_path):
    artefacts = [made(tmp_path / "made" / str(number), number) for number in range(2)]
    stage.publish(artefacts[0], tmp_path / "out")
    stop, mixtures, seen = threading.Event(), [], set()

    def read():
        while not stop.is_set():
            try:
                folder = os.open(tmp_path / "out", os.O_RDONLY)
            except FileNotFoundError:
                continue  # between the two renames
            try:
                names = os.listdir(folder)
                numbers = {content(folder, name) for name in ("first", "second")}
                seen.update(numbers)
                if len(numbers) != 1 or sorted(names) != ["first", manifest.NAME, "second"]:
                    mixtures.append((names, numbers))
            except FileNotFoundError:
                pass  # the old one, being removed after it was replaced
            finally:
                os.close(folder)

    def write(artefact):
        for _ in range(100):
            stage.publish(artefact, tmp_path / "out")

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(artefact,)) for artefact in artefacts]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert not mixtures and seen == {"0", "1"}
    manifest.verify(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["made", "out"]


@pytest.mark.parametrize("failing", ["copy", "first rename", "second rename"])
def test_a_failure_while_publishing_leaves_the_old_artefact(tmp_path, monkeypatch, failing):
    old, new = made(tmp_path / "made" / "0", 0), made(tmp_path / "made" / "1", 1)
    stage.publish(old, tmp_path / "out")
    renames, rename = [], os.rename

    def fail_at(source, target):
        renames.append(target)
        if len(renames) == {"first rename": 1, "second rename": 2}.get(failing):
            raise OSError(5, "Input/output error", str(target))
        rename(source, target)

    def fail_to_copy(source, target):
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(os, "rename", fail_at)
    if failing == "copy":
        monkeypatch.setattr(stage, "_link_or_copy", fail_to_copy)
    with pytest.raises(OSError):
        stage.publish(new, tmp_path / "out")
    assert manifest.verify(tmp_path / "out").config == {"number": 0}
    assert sorted(os.listdir(tmp_path)) == ["made", "out"]


def test_an_artefact_is_published_across_file_systems_and_through_a_link(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    elsewhere = tmp_path / "big disk" / "out"
    elsewhere.mkdir(parents=True)
    (tmp_path / "out").symlink_to(elsewhere)
    stage.publish(made(tmp_path / "made"), tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    manifest.verify(elsewhere)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--in", "DIR"], "write NAME=DIR; count reads texts, more"),
        ([], "--in texts=DIR is needed: documents"),
        (["--in", "texts=nowhere"], "nowhere: no such folder"),
        (["--in", "texts=TEXTS", "--scale", "tiny"], "--scale needs --params"),
        (["--in", "texts=TEXTS", "--params", "none.yaml"], "none.yaml: No such file"),
    ],
)
def test_a_wrong_command_line_is_one_line(texts, tmp_path, capsys, arguments, message):
    arguments = [a.replace("TEXTS", str(texts)) for a in arguments]
    assert counting.main(["count", *arguments, "--out", str(tmp_path / "out")]) in (1, 2)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and message in error and error.startswith("headwater-counting count: ")


def test_version_names_the_schemas_that_the_package_reads(capsys):
    with pytest.raises(SystemExit):
        counting.main(["--version"])
    assert "headwater-counting 0.1.0 (schemas: " in (printed := capsys.readouterr().out)
    assert all(f"{kind} {number}" in printed for kind, number in manifest.SCHEMAS.items())


def test_a_star_takes_any_number_of_further_inputs_under_names_of_the_users_own():
    several = replace(counting.STAGE, reads={"texts": ("documents",), "*": ("results",)})
    found = cli._inputs(several, ["b=/b", "texts=/t", "a=/a"])
    assert list(found.items()) == [("b", Path("/b")), ("texts", Path("/t")), ("a", Path("/a"))]
    assert stage.kinds_of(several, "texts") == ("documents",) and stage.kinds_of(several, "a") == ("results",)
    for given, message in [(["/t"], "reads texts, any results"), (["a=/a"], "texts=DIR is needed"),
                           (["texts=/t", "a=/a", "a=/b"], "a is given twice")]:  # fmt: skip
        with pytest.raises(UsageError, match=message):
            cli._inputs(several, given)


def test_two_words_are_the_stages_name():
    assert cli.spelled_out(["review", "export", "--in", "a=b"], "review") == ["review-export", "--in", "a=b"]
    assert cli.spelled_out(["review", "import", "a b.csv", "--out", "x"], "review") == [
        "review-import", "--out", "x", "--set", 'files=["a b.csv"]'
    ]  # fmt: skip
    for other in (["evaluate", "export"], ["review", "help"], ["review"], []):
        assert cli.spelled_out(other, "review") == other


def test_optional_code_counts_in_the_fingerprint_where_it_is_installed():
    config = counting.CountConfig()
    marks = [
        stage.fingerprint(replace(counting.STAGE, code=code), "headwater-counting", "0", config, {})
        for code in ((), ("headwater_no_such_package?",), ("headwater_data?",))
    ]
    assert marks[0] == marks[1] != marks[2]


def test_what_differs_from_run_to_run_is_in_the_record_alone(run, tmp_path):
    for out in ("first", "again"):  # the second publishes what is complete
        run(tmp_path / out, record=tmp_path / "record.json")
        assert json.loads((tmp_path / "record.json").read_text())["measured"]["texts_a_second"] > 0
        assert not any("texts_a_second" in path.read_text(errors="replace") for path in (tmp_path / out).iterdir())
