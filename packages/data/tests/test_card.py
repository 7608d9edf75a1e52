"""The data card, and the page of samples: in a real browser, and back into the next run."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import subprocess
import time

import aiohttp
import polars as pl
import pytest
from conftest import documents_folder, documents_frame, run_stage
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headwater_data._contracts.manifest import verify
from headwater_data.card.spans import OFFENDING, offending
from headwater_data.config import FilterConfig

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=1">\u2028'
RULES = {"braces": {"signal": "c4_curly_brackets", "remove_if": ">", "threshold": 0},
         "c4_curly_brackets": {"signal": "c4_curly_brackets", "remove_if": ">", "threshold": 0}}  # fmt: skip


@pytest.fixture(scope="module")
def lineage(tmp_path_factory, topics):
    """extracted, signals, filtered, deduped, corpus and card of a few real documents and a hostile one."""
    tmp = tmp_path_factory.mktemp("card")
    texts = [*topics[:25], topics[3], topics[4] + " {" + HOSTILE + "}"]
    extracted = documents_folder(tmp / "extracted", documents_frame(texts))
    (extracted / "metrics.json").write_text(json.dumps(funnel(texts)))
    made = {"extracted": extracted}
    made["signals"] = run_stage("signals", tmp, {"documents": extracted}, workers=1)
    rules = {"c4_curly_brackets": RULES["c4_curly_brackets"]}
    made["filtered"] = run_stage("filter", tmp, {"documents": made["signals"]}, rules=rules, published=False)
    made["deduped"] = run_stage("dedup", tmp, {"documents": made["filtered"]}, workers=1)
    made["corpus"] = run_stage("mix", tmp, {"documents": made["deduped"]}, heldout_fraction=0.1)
    made["card"] = run_stage("card", tmp, made, samples=30)
    return made


def funnel(texts: list[str]) -> dict:
    size = sum(len(t.encode()) for t in texts)
    counts = {"documents_in": len(texts), "documents_out": len(texts), "bytes_in": size, "bytes_out": size}
    return {**counts, "by_source": {"web": counts}, "by_rule": {}}


def test_the_card_says_what_each_step_let_through(lineage):
    card = json.loads((lineage["card"] / "card.json").read_text())
    steps = {row["step"]: row for row in card["funnel"]}
    assert list(steps) == ["extract", "filter", "dedup", "mix"]
    assert steps["filter"]["documents_in"] == 27
    for row in card["funnel"]:
        assert sum(e["documents_out"] for e in row["by_source"].values()) == row["documents_out"]
    removed = steps["filter"]["by_rule"]["c4_curly_brackets"]["documents"]
    assert steps["filter"]["documents_out"] == 27 - removed > 0
    assert steps["dedup"]["by_rule"]["exact_duplicate"]["documents"] == 1 and card["duplicates"] == {"2": 1}
    train = pl.read_parquet(lineage["corpus"] / "train" / "part-*.parquet")
    assert card["corpus"]["documents"] == len(train) == sum(e["documents"] for e in card["corpus"]["lengths"])
    assert card["corpus"]["bytes"] == train["text"].str.len_bytes().sum()
    verify(lineage["card"])


def test_cards_repeat_byte_for_byte(tmp_path, lineage):
    again = run_stage("card", tmp_path, {k: v for k, v in lineage.items() if k != "card"}, samples=30)
    for name in ("card.json", "card.html", "browse.html", "funnel.csv"):
        assert (again / name).read_bytes() == (lineage["card"] / name).read_bytes()


def test_tokens_are_estimated_with_a_tokenizer(tmp_path, lineage):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[U]": 0}, unk_token="[U]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "tok").mkdir()
    tokenizer.save(str(tmp_path / "tok" / "tokenizer.json"))
    inputs = {**{k: v for k, v in lineage.items() if k != "card"}, "tokenizer": tmp_path / "tok"}
    card = json.loads((run_stage("card", tmp_path, inputs) / "card.json").read_text())
    words = sum(len(t.split()) for t in pl.read_parquet(lineage["extracted"] / "part-*.parquet")["text"])
    assert card["funnel"][0]["tokens_in"] == pytest.approx(words, rel=0.05)


class Browser:
    """Chromium without a window, over its debugging protocol."""

    def __init__(self, url: str, profile):
        self.profile = profile
        self.process = subprocess.Popen(
            [shutil.which("chromium") or "chromium", "--headless", "--no-sandbox", "--disable-gpu",
             "--remote-debugging-port=0", f"--user-data-dir={profile}", url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *scripts: str) -> list:
        """What each script gives, in order, in the page."""
        return asyncio.run(self._run(scripts))

    async def _run(self, scripts: tuple[str, ...]) -> list:
        port_file, end = self.profile / "DevToolsActivePort", time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text().strip():
            assert time.monotonic() < end, "chromium did not start"
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [p for p in await answer.json() if p["type"] == "page" and p["url"].startswith("file")]
                if pages:
                    break
                assert time.monotonic() < end
                await asyncio.sleep(0.1)
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                results = []
                for number, script in enumerate(("document.readyState", *scripts)):
                    asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
                    await socket.send_json({"id": number, "method": "Runtime.evaluate", "params": asked})
                    while (answer := await socket.receive_json()).get("id") != number:
                        pass
                    assert "exceptionDetails" not in answer["result"], answer["result"]
                    results.append(answer["result"]["result"].get("value"))
                return results[1:]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def browser(lineage, tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")
    found = Browser((lineage["card"] / "browse.html").as_uri(), tmp_path / "profile")
    yield found
    found.close()


def test_flags_set_in_a_browser_are_honoured_by_the_next_run(lineage, browser, tmp_path):
    removed = pl.read_parquet(lineage["filtered"] / "rejects" / "*.parquet")["id"].to_list()
    kept = pl.read_parquet(lineage["corpus"] / "train" / "part-*.parquet")["id"].to_list()
    wait = "new Promise(r => { const t = setInterval(() => { if (document.querySelector('article')) { clearInterval(t); r(1); } }, 50); })"  # noqa: E501
    press = 'document.querySelector(\'article[data-id="%s"] button[data-flag="%s"]\').click()'
    _, count, title, marks, *_, text, stored = browser.run(
        wait, "samples.length", "document.title",
        "[...document.querySelectorAll('article')].filter(a => a.textContent.includes('c4_curly_brackets')).every("
        "a => a.querySelector('mark') && [...a.querySelectorAll('mark')].every(m => /^[{}]+$/.test(m.textContent)))",
        press % (removed[0], "keep"), press % (kept[0], "drop"), press % (kept[1], "wrong_extraction"),
        press % (kept[2], "drop"), press % (kept[2], "drop"),  # pressed again: taken back
        "csv()", "Object.keys(JSON.parse(localStorage.getItem(key))).length",
    )  # fmt: skip
    strata = json.loads((lineage["card"] / "metrics.json").read_text())["samples"]
    assert count == strata and title.endswith("samples") and marks is True and stored == 3
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {(r["id"], r["flag"]) for r in rows} == {
        (removed[0], "keep"), (kept[0], "drop"), (kept[1], "wrong_extraction")
    }  # fmt: skip
    path = tmp_path / "flags.csv"
    path.write_text(text)
    rules = {"c4_curly_brackets": RULES["c4_curly_brackets"]}
    out = run_stage(
        "filter", tmp_path, {"documents": lineage["signals"]}, rules=rules, published=False, flags=str(path)
    )
    ids = set(pl.read_parquet(out / "part-*.parquet")["id"])
    assert removed[0] in ids and not {kept[0], kept[1]} & ids and kept[2] in ids
    rejects = dict(pl.read_parquet(out / "rejects/*.parquet").select("id", "rule").rows())
    assert rejects[kept[0]] == "flag_drop" and rejects[kept[1]] == "flag_wrong_extraction"
    flags = json.loads((out / "metrics.json").read_text())["flags"]
    assert flags == {"keep": 1, "drop": 1, "wrong_extraction": 1, "missing_domain": 0, "not_found": 0}


def test_a_broken_flags_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "flags.csv"
    path.write_text("id,flag\na,keep\nb,maybe\n")
    with pytest.raises(ValidationError, match="line 3 needs an id and a flag"):
        FilterConfig(flags=str(path))
    with pytest.raises(ValidationError, match="not readable"):
        FilterConfig(flags=str(tmp_path / "none.csv"))


@given(st.sampled_from(sorted(OFFENDING)), st.text(alphabet="ab {}#.…-\n", max_size=80))
def test_marks_lie_in_the_text_apart_and_in_order(rule, text):
    spans = offending(rule, text)
    flat = [edge for span in spans for edge in span]
    assert flat == sorted(set(flat)) and all(0 <= edge <= len(text) for edge in flat)
