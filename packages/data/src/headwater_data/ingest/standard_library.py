"""Text that every Python carries: its modules, docstrings, topics, and the HTML that pydoc renders.

The lineage can run on it anywhere, without network. Of the standard library, only modules are taken whose import
has no effect (a fixed list), so that docstrings come from real objects and pydoc can render real pages.
"""

from __future__ import annotations

import inspect
import json
import platform
import pydoc
import sysconfig
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

VERSION = f"Python {platform.python_version()}"

# Documented at length, importable everywhere without a display, a terminal or an optional C library.
DOCUMENTED = [
    "abc",
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "calendar",
    "cmath",
    "codecs",
    "collections",
    "collections.abc",
    "concurrent.futures",
    "configparser",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "email.message",
    "email.utils",
    "enum",
    "fileinput",
    "fnmatch",
    "fractions",
    "functools",
    "getpass",
    "gettext",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "html.parser",
    "http.client",
    "http.cookies",
    "http.server",
    "imaplib",
    "importlib",
    "importlib.metadata",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "locale",
    "logging",
    "logging.handlers",
    "mailbox",
    "math",
    "mimetypes",
    "multiprocessing",
    "numbers",
    "operator",
    "os",
    "os.path",
    "pathlib",
    "pdb",
    "pickle",
    "pickletools",
    "pkgutil",
    "platform",
    "plistlib",
    "poplib",
    "pprint",
    "profile",
    "pstats",
    "queue",
    "quopri",
    "random",
    "re",
    "reprlib",
    "sched",
    "secrets",
    "selectors",
    "shelve",
    "shlex",
    "shutil",
    "signal",
    "smtplib",
    "socket",
    "socketserver",
    "ssl",
    "stat",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "sysconfig",
    "tarfile",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "token",
    "tokenize",
    "trace",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "unittest.mock",
    "urllib.parse",
    "urllib.request",
    "uuid",
    "warnings",
    "wave",
    "weakref",
    "webbrowser",
    "wsgiref.simple_server",
    "xml.dom.minidom",
    "xml.etree.ElementTree",
    "xml.sax",
    "zipfile",
    "zlib",
]


def modules() -> Iterator[tuple[str, bytes]]:
    """Every module's source outside tests and site-packages, as (path, bytes), sorted by path."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not skipped.intersection(relative.parts):
            yield relative.as_posix(), path.read_bytes()


def docstrings() -> Iterator[tuple[str, bytes]]:
    """One file, docstrings.jsonl: {"name", "signature", "doc"} of each documented public object, once a text."""
    seen: set[str] = set()
    rows = []
    for name in DOCUMENTED:
        for full_name, thing in _public(name, import_module(name)):
            doc = inspect.getdoc(thing)
            if doc and len(doc) >= 40 and doc not in seen:
                seen.add(doc)
                rows.append({"name": full_name, "signature": _signature(thing), "doc": doc})
    yield "docstrings.jsonl", b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def topics() -> Iterator[tuple[str, bytes]]:
    """The language reference's topics that `help()` shows, as (name.txt, bytes)."""
    from pydoc_data.topics import topics as texts

    for name in sorted(texts):
        yield f"{name}.txt", texts[name].encode()


def pydoc_pages() -> Iterator[tuple[str, bytes]]:
    """Each documented module's HTML page, as pydoc's own server sends it, with its navigation and colours."""
    renderer = _PortablePages()
    for name in DOCUMENTED:
        module = import_module(name)
        page = renderer.page(f"Python: module {name}", renderer.document(module, name))
        yield f"{name}.html", page.encode("utf-8", "replace")


class _PortablePages(pydoc.HTMLDoc):
    """pydoc's pages without what differs from machine to machine: paths, and the values of os.environ or sys.path."""

    def filelink(self, url: str, path: str) -> str:
        return Path(path).name

    def docother(self, object: object, name: str | None = None, mod: str | None = None, *ignored: object) -> str:
        return f"<strong>{name}</strong>" if name else ""


def _public(prefix: str, owner: ModuleType | type, depth: int = 0) -> Iterator[tuple[str, object]]:
    """Public classes, functions and methods below a module, in the order of their names."""
    if depth == 0:
        yield prefix, owner
    for name in sorted(vars(owner)):
        thing = vars(owner)[name]
        if isinstance(thing, (classmethod, staticmethod)):
            thing = thing.__func__
        if name.startswith("_") or not (inspect.isroutine(thing) or inspect.isclass(thing)):
            continue
        yield f"{prefix}.{name}", thing
        if inspect.isclass(thing) and depth == 0:
            yield from _public(f"{prefix}.{name}", thing, depth + 1)


def _signature(thing: object) -> str:
    """Parameters as text, empty where the object does not tell; defaults that print an address are cut."""
    try:
        text = str(inspect.signature(thing))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    return "" if " at 0x" in text else text
