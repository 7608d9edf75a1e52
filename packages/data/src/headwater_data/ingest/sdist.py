"""Download the sdist of a Python package without building it: `python -m ... PACKAGE VERSION -d FOLDER`, as pip's.

pip runs a sdist's build backend (for an old one its setup.py) before it hands the file over, and refuses one whose
metadata it does not like. Files that are only read need neither; unearth, the finder of PDM, looks them up in the
indexes that pip is configured to use.
"""

from __future__ import annotations

import argparse
import ast
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from unearth import PackageFinder
from unearth.fetchers.sync import PyPIClient
from unearth.preparer import download_link

SECTIONS = ("global", "download", ":env:")
"""Of pip's configuration, a later one before an earlier one: files, files for `pip download`, PIP_* variables."""


def download(package: str, version: str, folder: Path) -> None:
    """Put the archive into a folder, checked against the hash that the index states.

    Raises:
        LookupError: no index has a sdist of this version.
        Exception: whatever the client raises where an index or the file cannot be read.
    """
    finder = _finder(package, pip_settings())
    best = finder.find_best_match(f"{package}=={version}", allow_prereleases=True).best
    if best is None:
        raise LookupError(f"no index has a sdist of {package}=={version}")
    hashes = {kind: [value] for kind, value in (best.link.hashes or {}).items()}
    file = download_link(finder.session, best.link, folder, hashes or None)
    if file.parent != folder:  # a file of this machine stays where it is
        shutil.copy(file, folder)


def pip_settings() -> dict[str, str]:
    """What pip is configured to, by its files and the environment: option -> value, such as `index-url`."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in found:
            found[section][option] = ast.literal_eval(value)
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def _finder(package: str, settings: dict[str, str]) -> PackageFinder:
    logging.getLogger("unearth").setLevel(logging.ERROR)  # that one of several indexes lacks it is no warning
    client = PyPIClient(
        trusted_hosts=settings.get("trusted-host", "").split(),
        verify=settings.get("cert", True),
        timeout=float(settings.get("timeout") or settings.get("default-timeout") or 60),
        follow_redirects=True,
    )
    own = settings.get("index-url")
    finder = PackageFinder(  # without an index url: PyPI
        client,  # type: ignore[arg-type]  # its types are httpx's, which the protocol narrows
        index_urls=[own] if own else (),
        no_binary=[package],
    )
    for url in settings.get("extra-index-url", "").split():
        finder.add_index_url(url)
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        finder.sources.clear()
    for place in settings.get("find-links", "").split():
        finder.add_find_links(place if "://" in place else Path(place).expanduser().absolute().as_uri())
    return finder


def main() -> None:
    """Download, or say why not as the last line of stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package")
    parser.add_argument("version")
    parser.add_argument("-d", dest="folder", type=Path, required=True)
    args = parser.parse_args()
    try:
        download(args.package, args.version, args.folder)
    except Exception as e:  # the client's errors have no class in common
        sys.exit(f"ERROR: {str(e) or type(e).__name__}")


if __name__ == "__main__":
    main()
