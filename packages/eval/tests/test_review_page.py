"""The page for reviewers, in a real browser, from its file: judged there, saved, imported."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from headwater_eval.review.answers import Answer, read
from headwater_eval.review.sampling import Unit
from headwater_eval.review.sheet import page

aiohttp = pytest.importorskip("aiohttp", reason="speaks to the browser")
HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=1">\u2028'
CLASSES = {"none": "fine", "wrong fact": "not so", "<b>": HOSTILE}


class Browser:
    """Chromium without a window, over its debugging protocol."""

    def __init__(self, url: str, profile: Path):
        self.profile, self.number = profile, 0
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
                while not (await self._ask(socket, "Boolean(document.querySelector('article'))")):
                    assert time.monotonic() < end, "the page shows nothing"
                    await asyncio.sleep(0.05)
                return [await self._ask(socket, script) for script in scripts]

    async def _ask(self, socket, script: str):
        self.number += 1
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        await socket.send_json({"id": self.number, "method": "Runtime.evaluate", "params": asked})
        while (answer := await socket.receive_json()).get("id") != self.number:
            pass
        if "error" in answer:  # the page is on its way
            return None
        assert "exceptionDetails" not in answer["result"], answer["result"]
        return answer["result"]["result"].get("value")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def unit(number: int) -> Unit:
    return Unit(f"item-{number}", "m", "quiz", f"q{number}", "wrong", "unsure", "", 0.1, f"Prompt {number} {HOSTILE}",
                ("red", "green"), HOSTILE, "green")  # fmt: skip


@pytest.fixture
def browser(tmp_path: Path):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")
    path = tmp_path / "review.html"
    path.write_text(page([unit(i) for i in range(4)], "ann", CLASSES, "sample-1", "4 answers to review", True))
    found = Browser(path.as_uri(), tmp_path / "profile")
    yield found
    found.close()


def test_judgements_made_in_a_browser_are_imported(browser: Browser, tmp_path: Path) -> None:
    press = 'document.querySelector(\'article[data-item="%s"] button[data-class="%s"]\').click()'
    write = (
        "(() => { const a = document.querySelectorAll('article[data-item=\"item-1\"] textarea')[%d]; "
        "a.value = %s; a.dispatchEvent(new Event('input')); })()"
    )
    title, shown, scripts, *_, count, table, tasks, stored = browser.run(
        "document.title",
        "[...document.querySelectorAll('article')].map(a => a.querySelectorAll('pre')[2].textContent)",
        "document.querySelectorAll('script').length + document.querySelectorAll('img').length",
        press % ("item-0", "none"), press % ("item-1", "wrong fact"), press % ("item-2", "<b>"),
        press % ("item-2", "<b>"),  # pressed again: taken back
        write % (0, json.dumps('say "no", or\nnothing')), write % (1, json.dumps("=1+1")),
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'})); "
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'})); "
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'})); "
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: '2'}))",
        "document.getElementById('count').textContent", "csv()", "json()",
        "Object.keys(JSON.parse(localStorage.getItem(key))).length",
    )  # fmt: skip
    assert title == "4 answers to review" and scripts == 2  # none came from the answers
    assert shown[0].startswith("</script><script>") and "[U+2028]" in shown[0]
    assert count == "3 of 4 done" and stored == 4
    expected = [("item-0", "none", "", ""), ("item-1", "wrong fact", 'say "no", or\nnothing', "=1+1"),
                ("item-3", "wrong fact", "", "")]  # fmt: skip
    assert [row["class"] for row in csv.DictReader(io.StringIO(table))] == [label for _, label, _, _ in expected]
    for name, text in (("ann.csv", table), ("ann.json", tasks)):
        (tmp_path / name).write_text(text)
        found = [a for a in read(tmp_path / name) if isinstance(a, Answer)]
        assert [(a.item, a.label, a.corrected, a.comment) for a in found] == expected
        assert {a.reviewer for a in found} == {"ann"}


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    plain = Unit("i", "m", "quiz", "q", "wrong", "", "", None, "Why?", (), "So.", "No.")
    text = page([plain], "ann", {"none": "fine"}, "s", "t", True)
    assert "default-src 'none'" in text
    assert not any(word in text for word in ("http://", "https://", "src=", "url(", "@import", "fetch("))
