"""The tree keeps its promises: links, versions, pages, owners, no machine path, nothing large."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib import import_module

import pytest
import yaml

from headwater_data._contracts.config import load_section, parse, read_yaml
from tests.conftest import ROOT

PACKAGES = ["data", "tokenizer", "model", "eval", "align"]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_carries_the_contract_by_a_link(package: str) -> None:
    link = ROOT / f"packages/{package}/src/headwater_{package}/_contracts"
    assert os.readlink(link) == "../../../../contracts/_contracts"
    assert (link / "manifest.py").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_version_is_the_top_of_the_changelog(package: str) -> None:
    folder = ROOT / "packages" / package
    version = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    top = re.search(r"^## (\S+)", (folder / "CHANGELOG.md").read_text(), re.M)
    assert top and top[1] == version
    assert (folder / "LICENSE").is_file()
    assert (folder / "README.md").stat().st_size > 500


def test_every_preset_has_every_section_that_the_lineage_names() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    params = read_yaml(ROOT / "params.yaml")
    assert next(iter(params)) == "scale"
    for preset in ("smoke", "tiny", "small", "gpu8", "nodes64"):
        values = read_yaml(ROOT / f"configs/{preset}.yaml")
        for name, stage in stages.items():
            for item in stage.get("do", stage)["params"]:
                if isinstance(item, str):
                    assert item in params, f"params.yaml lacks {item}, which stage {name} names"
                else:
                    (sections,) = item.values()
                    assert set(sections) <= set(values), f"configs/{preset}.yaml lacks {sections} of stage {name}"


@pytest.mark.parametrize("scale", ["smoke", "tiny", "small", "gpu8", "nodes64"])
@pytest.mark.parametrize("package", PACKAGES)
def test_every_stage_accepts_its_section_of_every_preset(package: str, scale: str) -> None:
    lineage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for stage in import_module(f"headwater_{package}.cli").STAGES:
        section = stage.section or stage.name
        values = load_section(ROOT / "params.yaml", section, scale)
        if values or stage.name in lineage:  # a stage outside the lineage may need what only its user knows
            parse(stage.config, values, section)


def test_no_tracked_file_names_a_machine_path_or_a_registry_host() -> None:
    # Spelt in pieces, so that this file passes its own test.
    hosts = ["python" + "hosted", "pypi" + r"\.org", "npm" + r"js\.org", "/work" + "/[a-z]", "/ro" + "ot/[a-z.]"]
    pattern = re.compile("|".join(hosts))
    for name in tracked():
        if name.endswith((".md", ".py", ".yaml", ".toml", ".txt", ".json", ".sh", "Makefile", "run")):
            found = pattern.search((ROOT / name).read_text(errors="replace"))
            assert not found, f"{name}: {found[0]}"


def test_nothing_large_is_tracked() -> None:
    sizes = {name: (ROOT / name).stat().st_size for name in tracked()}
    assert max(sizes.values()) < 1_000_000 and sum(sizes.values()) < 20_000_000


def test_every_path_of_the_tree_has_an_owner() -> None:
    owners = (ROOT / ".github/CODEOWNERS").read_text()
    for package in PACKAGES:
        assert re.search(rf"^/packages/{package}/ +@\S+", owners, re.M)
    for shared in ("/contracts/", "/dvc.yaml", "/configs/"):
        assert re.search(rf"^{shared} +@\S+ @\S+", owners, re.M), f"{shared} needs two owners"


def test_the_pages_of_the_suites_are_the_catalogue_s(tmp_path) -> None:
    from headwater_eval import suite_pages

    suite_pages.write(tmp_path)
    made, there = ({page.name: page.read_text() for page in folder.glob("*.md")} for folder in
                   (tmp_path, ROOT / "docs/suites"))  # fmt: skip
    assert made == there, "make them again: headwater-eval tasks --pages docs/suites"
