"""A changed artefact is never read, and the one line says which file changed."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater_data._contracts import manifest
from headwater_data._contracts.manifest import ArtefactError, Manifest, canonical_json, verify, write_atomic

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def artefact(tmp_path):
    folder = tmp_path / "artefact"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "part-0.txt").write_text("the first shard")
    (folder / "notes.txt").write_text("notes")
    manifest.write(folder, Manifest("documents", 1, "headwater-data", "0.1.0", "extract", {"seed": 0}, {"raw": "ab12"}))
    return folder


def refused(folder, *kinds) -> str:
    with pytest.raises(ArtefactError) as fault:
        verify(folder, kinds)
    assert "\n" not in str(fault.value) and fault.value.exit_code == 1
    return str(fault.value)


def edit(folder, **changes):
    path = folder / manifest.NAME
    path.write_text(canonical_json(json.loads(path.read_text()) | changes))


def test_what_was_written_verifies_and_says_kind_producer_config_inputs_and_files(artefact):
    read = verify(artefact, ("corpus", "documents"))
    assert (read.kind, read.package, read.stage, read.config) == ("documents", "headwater-data", "extract", {"seed": 0})
    assert read.inputs == {"raw": "ab12"}
    assert sorted(read.files) == ["notes.txt", "train/part-0.txt"]
    assert read.files["notes.txt"]["bytes"] == 5


@pytest.mark.parametrize("position", range(0, 15, 3))
def test_one_flipped_bit_is_found_and_the_file_named(artefact, position):
    path = artefact / "train" / "part-0.txt"
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << position % 8
    path.write_bytes(content)
    assert f"{path}: changed since it was made" in refused(artefact)


def test_a_truncated_file_is_found(artefact):
    os.truncate(artefact / "train" / "part-0.txt", 14)
    assert "part-0.txt: changed" in refused(artefact)


def test_a_missing_file_is_found(artefact):
    (artefact / "notes.txt").unlink()
    assert "notes.txt: missing" in refused(artefact)


def test_a_file_too_many_is_found(artefact):
    (artefact / "train" / "part-1.txt").write_text("left over from another run")
    assert "part-1.txt: not in the manifest" in refused(artefact)


def test_hidden_files_belong_to_the_artefact_and_hidden_litter_does_not_spoil_it(artefact):
    """A Megatron checkpoint keeps its index in .metadata; a Mac leaves .DS_Store behind."""
    (artefact / ".metadata").write_text("index")
    manifest.write(artefact, Manifest("documents", 1, "headwater-data", "0.1.0", "extract", {}))
    (artefact / ".DS_Store").write_text("litter")
    verify(artefact)
    (artefact / ".metadata").write_text("other")
    assert ".metadata: changed" in refused(artefact)


def test_another_kind_is_refused_with_both_names(artefact):
    assert "holds documents, but corpus or tokens is needed here" in refused(artefact, "corpus", "tokens")


def test_another_schema_version_is_refused_with_both_numbers(artefact):
    edit(artefact, schema=2)
    assert "documents of schema version 2, but this package reads 1" in refused(artefact)


def test_a_kind_from_the_future_is_refused(artefact):
    edit(artefact, kind="hologram", schema=None)
    assert "hologram is no kind that this package knows" in refused(artefact)


def test_a_folder_without_manifest_and_a_missing_folder_say_so(artefact):
    assert "no such folder" in refused(artefact / "elsewhere")
    (artefact / manifest.NAME).unlink()
    assert "no manifest.json" in refused(artefact)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"kind": "documents"}',
     b'{"kind":"documents","schema":1,"package":"p","version":"1","stage":"s","config":{},"files":["a"]}',
     b'{"kind":"documents","schema":1,"package":"p","version":"1","stage":"s","config":{},"files":{"a":{"bytes":1}}}',
     b'{"kind":"documents","schema":1,"package":"p","version":"1","stage":"s","config":{},'
     b'"files":{"../a":{"bytes":1,"sha256":"0"}}}',
     b'{"kind":["documents"],"schema":1,"package":"p","version":"1","stage":"s","config":{}}'],
)  # fmt: skip
def test_an_unreadable_manifest_is_one_line_that_names_it(artefact, content):
    (artefact / manifest.NAME).write_bytes(content)
    assert "manifest.json: not a readable manifest" in refused(artefact)


def test_the_manifest_depends_on_contents_alone_and_holds_no_path(artefact, tmp_path):
    other = tmp_path / "some" / "other" / "place"
    (other / "train").mkdir(parents=True)
    (other / "notes.txt").write_text("notes")
    (other / "train" / "part-0.txt").write_text("the first shard")
    manifest.write(other, Manifest("documents", 1, "headwater-data", "0.1.0", "extract", {"seed": 0}, {"raw": "ab12"}))
    assert (other / manifest.NAME).read_bytes() == (artefact / manifest.NAME).read_bytes()
    assert str(tmp_path) not in (other / manifest.NAME).read_text()


@given(plain)
def test_canonical_json_reads_back_as_it_was(value):
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), plain, min_size=2), st.randoms())
def test_canonical_json_forgets_the_order_of_keys(mapping, random):
    keys = list(mapping)
    random.shuffle(keys)
    assert canonical_json({key: mapping[key] for key in keys}) == canonical_json(mapping)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_cannot_say(number):
    with pytest.raises(ValueError):
        canonical_json({"loss": number})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
