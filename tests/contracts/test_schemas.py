"""Every kind of artefact has its page, and every stage reads and writes kinds that exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from headwater_data._contracts.manifest import SCHEMAS

PAGES = Path(__file__).parents[2] / "contracts" / "schemas"
PACKAGES = ("data", "tokenizer", "model", "eval", "align")


def test_every_kind_has_a_page_that_names_its_version_and_no_page_is_left_over():
    titles = {page.stem: page.read_text().splitlines()[0] for page in PAGES.glob("*.md") if page.stem != "README"}
    assert titles == {kind: f"# {kind}, schema {number}" for kind, number in SCHEMAS.items()}


def test_the_overview_lists_every_kind_with_its_version():
    listed = dict(re.findall(r"^\| \[(\w+)\]\(\1\.md\) (\d+) \|", (PAGES / "README.md").read_text(), re.MULTILINE))
    assert listed == {kind: str(number) for kind, number in SCHEMAS.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_stage_reads_and_writes_known_kinds(package):
    stages = import_module(f"headwater_{package}.cli").STAGES
    assert stages
    for stage in stages:
        assert {stage.writes, *(kind for kinds in stage.reads.values() for kind in kinds)} <= set(SCHEMAS), stage.name


@pytest.mark.parametrize("package", PACKAGES)
def test_the_overview_names_every_stage_as_the_maker_of_its_kind(package):
    rows = {
        m[1]: m[2] for m in re.finditer(r"^\| \[(\w+)\]\S+ \d+ \| ([^|]*) \|", (PAGES / "README.md").read_text(), re.M)
    }
    for stage in import_module(f"headwater_{package}.cli").STAGES:
        makers = next((m for m in rows[stage.writes].split(";") if f"headwater-{package} " in m), "")
        assert re.search(rf"\b{stage.name}\b", makers), f"{stage.name} writes {stage.writes}"
