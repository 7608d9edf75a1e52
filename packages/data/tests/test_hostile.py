# ruff: noqa: E501  the samples have lines of their own length
"""Hostile input: every record is read or set aside with a reason, in bounded memory and time, and its neighbours stay."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from test_formats import PROSE, read, samples, warc

from headwater_data._contracts.errors import UserError
from headwater_data.config import ExtractConfig, SourceConfig
from headwater_data.ingest.fetch import Member, fetch
from headwater_data.ingest.files import context_of, plan_files, read_files, read_stream
from headwater_data.ingest.pack import pack_warc
from headwater_data.ingest.records import Malformed, Raw
from headwater_data.ingest.sandbox import Refused, Sandbox
from headwater_data.ingest.web_guard import PrivateAddress, guarded_connection

GOOD = json.dumps({"text": PROSE}).encode()


def rules(bad: list[Malformed]) -> list[str]:
    return sorted(m.rule for m in bad)


def in_zip(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_bombs_are_refused_and_their_neighbours_read(tmp_path):
    zeros = bytes(60_000_000)
    members = {
        "a.gz": gzip.compress(zeros),  # 1:1000
        "b.zip": in_zip(bomb=zeros, good=GOOD),
        "c.gz": gzip.compress(gzip.compress(zeros)),
        "d.gz": gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(GOOD))))),
        "e.jsonl": GOOD,
    }
    good, bad = read(tmp_path / "in", members, max_text_bytes=50_000_000, max_expansion=200)
    assert [r.text for r in good] == [PROSE, PROSE]
    found = Counter(rules(bad))
    assert found["archive_too_deep"] == 1
    assert sum(n for rule, n in found.items() if rule != "archive_too_deep") == 3, bad


def test_members_that_climb_and_links_write_nothing(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("../../../../tmp/climbed.txt")
        info.size = len(GOOD)
        archive.addfile(info, io.BytesIO(GOOD))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        device = tarfile.TarInfo("device")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    before = set(Path("/tmp").iterdir())
    good, bad = read(tmp_path / "in", {"a.tar": out.getvalue()})
    assert [r.text for r in good] == [PROSE] and not bad
    assert not any(p.name == "climbed.txt" for p in set(Path("/tmp").iterdir()) - before)


def test_pages_that_take_too_long_go_and_the_others_stay(tmp_path):
    pages = [Member(f"{i}.html", f"<html><body><p>{i}: {PROSE * 3}</p></body></html>".encode(), None) for i in range(6)]
    pages.insert(3, Member("deep.html", b"<div>" * 200_000 + b"text", None))
    pack_warc(pages, "https://example.org/", tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "w").write_bytes((tmp_path / "pages.warc.gz").read_bytes())
    source = {"name": "mine", "reader": "auto", "text_field": "text", "base_url": ""}
    config = ExtractConfig(page_seconds=1.5)
    records = [r for part in plan_files(tmp_path / "in", source, config) for r in read_files(part)]
    assert [r.text.split(":")[0] for r in records if isinstance(r, Raw)] == list("012345")
    assert rules([r for r in records if isinstance(r, Malformed)]) == ["extractor_timeout"]


def crash(task: str) -> str:
    """For the sandbox: does what its task says."""
    if task == "crash":
        os.kill(os.getpid(), 11)
    if task == "bloat":
        return "x" * len(bytearray(3_000_000_000))
    if task == "raise":
        raise KeyError(task)
    if task == "exit":
        os._exit(0)
    if task == "print":
        print("into the answers?")
    return task.upper()


def test_a_parser_that_crashes_bloats_exits_or_raises_costs_its_item_alone(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    tasks = ["a", "crash", "b", "bloat", "raise", "exit", "print", "c"]
    with Sandbox("test_hostile:crash", 20, 1_500_000_000) as sandbox:
        answers = sandbox.map(tasks)
    outcome = [a.rule if isinstance(a, Refused) else a for a in answers]
    assert outcome == [
        "A", "extractor_crashed", "B", "extractor_memory", "unreadable_page", "extractor_crashed", "PRINT", "C"
    ]  # fmt: skip


def test_lines_of_a_gigabyte_are_never_held(tmp_path):
    """In a process of its own: a 600 MB line between two good ones, and its peak memory."""
    (tmp_path / "in").mkdir()
    with open(tmp_path / "in" / "x.jsonl", "wb") as f:
        f.write(GOOD + b'\n{"text": "')
        for _ in range(600):
            f.write(b"a" * 1_000_000)
        f.write(b'"}\n' + GOOD + b"\n")
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from test_formats import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "good, bad = read(Path(sys.argv[1]), {}, max_line_bytes=10_000_000)\n"
        "print(len(good), [m.rule for m in bad], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    for split in ("64_000_000", "10_000_000_000"):
        line = code.replace("max_line_bytes", f"split_bytes={split}, max_line_bytes")
        done = subprocess.run(
            [sys.executable, "-c", line, str(tmp_path / "in"), str(Path(__file__).parent)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        count, found, grown = done.stdout.strip().rpartition(" ")[0].split(" ", 1) + [done.stdout.split()[-1]]
        assert count == "2" and found == "['line_too_long']" and int(grown) < 150_000, done.stdout


def test_a_lying_content_length_and_wrong_encodings_cost_their_record(tmp_path):
    body = b"<html><body><p>" + PROSE.encode() * 3 + b"</p></body></html>"

    def record(length: int, http_length: int, charset: str, data: bytes = body) -> bytes:
        http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset={charset}\r\nContent-Length: {http_length}\r\n\r\n"
        payload = http.encode() + data
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://x.org/\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {len(payload) + length}\r\n\r\n"
        return head.encode() + payload + b"\r\n\r\n"

    true = record(0, len(body), "utf-8")
    data = true + record(0, 10**9, "utf-8") + record(0, 3, "no-such-charset") + true
    latin = body.replace(b"quiet", "fröhlich".encode("latin-1"))
    data += record(0, len(latin), "utf-8", latin) + true
    good, bad = read(tmp_path / "in", {"a.warc": data})
    assert len(good) == 6 and not bad and "fröhlich" in good[4].text
    good, bad = read(
        tmp_path / "lie",
        {"b.warc.gz": gzip.compress(true) + gzip.compress(record(50, 5, "utf-8")) + gzip.compress(true)},
    )
    assert len(good) >= 1 and len(good) + len(bad) >= 2


def test_null_bytes_and_truncation(tmp_path):
    members = {"a.txt": b"\0" * 100 + b"text", "b.jsonl": GOOD + b"\n" + b"\0" * 50 + b"\n" + GOOD + b"\n{"}
    found = samples(tmp_path)
    for name in ("gzip", "epub", "parquet", "mediawiki", "jats"):
        data = gzip.compress(GOOD * 100) if name == "gzip" else found[name][0]
        members[f"cut.{name}"] = data[: len(data) * 2 // 3]
    good, bad = read(tmp_path / "in", members)
    assert [r.text for r in good if r.key.startswith("b.jsonl")] == [PROSE, PROSE]
    assert {m.key.split("#")[0].split("/")[0] for m in bad} >= {
        "a.txt",
        "b.jsonl",
        "cut.epub",
        "cut.parquet",
        "cut.jats",
    }


def test_an_xml_bomb_is_refused(tmp_path):
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE article [<!ENTITY l0 "lol">{entities}]><article><body><p>&l11;</p></body></article>'
    _, bad = read(tmp_path / "in", {"a.xml": bomb.encode()}, reader="jats")
    assert rules(bad) == ["broken_xml"]
    outside = '<?xml version="1.0"?><!DOCTYPE article [<!ENTITY f SYSTEM "file:///etc/passwd">]><article><body><p>&f;</p></body></article>'
    good, bad = read(tmp_path / "out", {"a.xml": outside.encode()}, reader="jats")
    assert not any("root:" in r.text for r in good)


MUTATIONS = 10_000


def test_ten_thousand_mutated_records_cost_no_crash_and_no_good_neighbour(tmp_path):
    """Every format's sample, bytes flipped, cut, doubled and spliced; a good record is read after each."""
    rng = random.Random(7)
    seeds = {name: data for name, (data, _) in samples(tmp_path).items()}
    seeds |= {"gzip": gzip.compress(GOOD), "zip": in_zip(a=GOOD, b=GOOD), "warc2": warc(tmp_path)}
    source = {"name": "mine", "reader": "auto", "text_field": "text", "base_url": ""}
    config = ExtractConfig(page_seconds=5)
    context = context_of(source, config)
    names = sorted(seeds)
    outcomes: Counter[str] = Counter()
    for i in range(MUTATIONS):
        name = names[i % len(names)]
        data = mutated(seeds[name], seeds[rng.choice(names)], rng)
        for record in opened_records(data, context):
            assert isinstance(record.key, str)
            outcomes["read" if isinstance(record, Raw) else record.rule] += 1
            if isinstance(record, Raw):
                record.text.encode("utf-8", "replace")
        if i % 10 == 0:  # the good neighbour
            (neighbour,) = read_stream(io.BytesIO(GOOD), "n", context)
            assert isinstance(neighbour, Raw) and neighbour.text == PROSE
    assert outcomes["read"] > 1000 and len(outcomes) >= 10, outcomes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000


def opened_records(data: bytes, context):
    from headwater_data.ingest.bounded import Limits, TooLarge, opened

    for found in opened(io.BytesIO(data), Limits(50_000_000, 200, 4)):
        if found.stream is None:
            yield Malformed(found.name, found.rule, found.detail)
            continue
        try:
            yield from read_stream(found.stream, found.name, context)
        except (TooLarge, OSError, EOFError) as e:
            yield Malformed(found.name, "broken_archive", type(e).__name__)


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(content)) if content else 0
        match rng.randrange(6):
            case 0 if content:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
            case 2:
                del content[at : at + rng.choice((1, 10, 200))]
            case 3:
                content[at:at] = content[max(at - 50, 0) : at + 50]
            case 4:
                start = rng.randrange(len(other))
                content[at:at] = other[start : start + 200]
            case _:
                content[at : at + 1] = rng.choice((b"\0", b"\xff", b"<", b"]]>", b"\r\n\r\n", b"\xf0\x9f"))
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content)


# ---- downloads ------------------------------------------------------------------------------------------------------


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/good.jsonl")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(GOOD) + (500 if self.path.startswith("/lie") else 0)))
        self.end_headers()
        self.wfile.write(GOOD)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.shutdown()


def url_source(url: str, **fields) -> SourceConfig:
    return SourceConfig(category="internet", licence="CC0-1.0", kind="url", url=url, **fields)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "0x7f.1"]
)
def test_private_addresses_are_refused_however_they_are_written(tmp_path, host):
    with pytest.raises(UserError, match="private address|can't be read"):
        fetch("mine", url_source(f"http://{host}:9/x.jsonl"), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_redirect_into_a_private_network_is_refused(tmp_path, server, monkeypatch):
    """A public name that answers with a redirect: here the first connection is let through as if it were public."""
    port = int(server.rpartition(":")[2])
    real, calls = guarded_connection, []

    def first_is_public(address, *args):
        calls.append(address)
        return socket.create_connection(("127.0.0.1", port)) if len(calls) == 1 else real(address, *args)

    monkeypatch.setattr("headwater_data.ingest.web_guard.guarded_connection", first_is_public)
    with pytest.raises(UserError, match="leads to a private address"):
        fetch("mine", url_source("http://public.example/redirect"), tmp_path)
    assert len(calls) == 2 and calls[1][0] == "127.0.0.1"


def test_what_is_allowed_is_fetched(tmp_path, server):
    found = fetch("mine", url_source(f"{server}/good.jsonl", allow_private=True), tmp_path)
    assert found.path is not None and found.path.read_bytes() == GOOD


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [("/lie.jsonl", {}, "ended after"), ("/good.jsonl", {"max_bytes": 10}, "more than 10 bytes")],
)
def test_a_lying_or_endless_answer_leaves_nothing(tmp_path, server, monkeypatch, path, fields, says):
    port = int(server.rpartition(":")[2])
    monkeypatch.setattr(
        "headwater_data.ingest.web_guard.guarded_connection", lambda *_: socket.create_connection(("127.0.0.1", port))
    )
    with pytest.raises(UserError, match=says):
        fetch("mine", url_source(f"http://public.example{path}", **fields), tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_guard_names_what_it_refuses():
    with pytest.raises(PrivateAddress, match="not public"):
        guarded_connection(("localhost", 80))
