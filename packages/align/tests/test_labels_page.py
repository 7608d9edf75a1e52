"""The page for labellers, in a real browser, from its file: ranked there by hand, saved, loaded, imported."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from html import unescape

import pytest

from headwater_align.labels import page
from headwater_align.labels.rankings import Ranking
from headwater_align.labels.tasks import Task

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=1"><!--{{ data }}'
TASKS = [
    Task.of(
        {
            "id": f"r{i}", "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HOSTILE}],
            "responses": [HOSTILE, "B.", "C.", "D."], "policies": [None] * 4,
            "source": "s", "licence": "x", "split": "train", "round": "r1", "batch": "b",
        },
        1, ["ann"],
    )
    for i in range(4)
]  # fmt: skip

DRIVER = """
<script>
addEventListener("load", async () => {
  const key_ = name => document.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
  const names = () => [...document.querySelectorAll("article")].map(a => a.dataset.name);
  const all = what => [...document.querySelectorAll(what)];
  const press = (i, rank) => all("article")[i].querySelector(`button[data-rank="${rank}"]`).click();
  const skip = text => { byId("skip").value = text; byId("skip").onchange({ target: byId("skip") }); };
  const write = text => { byId("comment").value = text; byId("comment").oninput({ target: byId("comment") }); };
  const drop = (i, rank) => {
    const lane = document.querySelector(`.lane[data-rank="${rank}"]`), carried = { dataTransfer: new DataTransfer() };
    all("article .grip")[i].dispatchEvent(new DragEvent("dragstart", carried));
    for (const name of ["dragover", "drop"]) lane.dispatchEvent(new DragEvent(name, { ...carried, cancelable: true }));
  };
  const choose = async text => {
    const transfer = new DataTransfer(), input = byId("load");
    transfer.items.add(new File([text], "saved.json"));
    input.files = transfer.files; input.dispatchEvent(new Event("change"));
    for (let i = 0; i < 100 && !byId("told").textContent; i++) await new Promise(r => setTimeout(r, 10));
    return byId("told").textContent;
  };
  const saved = async () => {  // what the button hands to the browser's downloads
    let blob; const own = URL.createObjectURL;
    URL.createObjectURL = b => { blob = b; return own.call(URL, b); };
    byId("save").click(); URL.createObjectURL = own;
    return JSON.parse(await blob.text());
  };
  let out; try { out = await (async () => { %s })(); } catch (e) { out = { error: String(e) }; }
  const pre = document.createElement("pre"); pre.id = "result"; pre.textContent = JSON.stringify(out);
  document.body.append(pre);
});
</script>
"""


@pytest.fixture
def drive(tmp_path):
    """A function that runs a script in the page and gives what it returns."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")

    def run(script: str):
        path = tmp_path / "rank.html"
        path.write_text(page.write(TASKS, "ann", 1, "sheet-1").replace("</body>", DRIVER % script + "</body>"))
        for attempt in range(3):  # now and then a busy machine's Chromium hangs before it has loaded the page
            if (told := dump(path, tmp_path / f"profile-{attempt}")) is not None:
                return json.loads(unescape(told))
        pytest.fail("the page did not come to its end")

    def dump(path, profile):
        """What the page wrote, or None where it has not in 40 seconds."""
        dumped = profile.with_suffix(".html")
        with open(dumped, "wb") as file:
            process = subprocess.Popen(
                ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
                 "--virtual-time-budget=8000", "--dump-dom", path.as_uri()],
                stdout=file, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:  # it does not always end by itself once it has written the page
            end = time.monotonic() + 40
            while time.monotonic() < end:
                found = re.search(r'<pre id="result">(.*?)</pre>', dumped.read_text("utf-8", "ignore"), re.S)
                if found:
                    return found[1]
                time.sleep(0.05)
            return None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return run


def test_ranked_by_keys_buttons_and_dragging_saved_and_imported(drive):
    out = drive("""
        const shown = [];
        key_("2"); key_("1"); key_("3"); key_("2"); shown.push(names());  // A to D in turn, two of them second
        byId("confidence").children[3].click(); write('say "no"');
        key_("Enter"); shown.push(names());
        press(0, 4); press(1, 1); press(2, 2); press(3, 3); press(3, 3); press(3, 2);  // pressed again: taken back
        key_("ArrowRight"); shown.push(names());
        drop(0, 1); drop(1, 1); drop(2, 3); drop(3, 3); drop(3, 4);
        key_("ArrowRight"); skip(data.skips[0]);
        return { shown, stored: Object.keys(JSON.parse(localStorage.getItem(key))).length, title: document.title,
                 count: byId("count").textContent, scripts: all("script").length, images: all("img").length,
                 text: all("#prompt pre")[1].textContent, lanes: all(".lane").length, json: await saved() };
    """)
    assert out["title"] == "Responses to rank" and out["images"] == 0 and out["text"] == HOSTILE
    assert out["scripts"] == 3  # data, the page's own and this test's; none came from a response
    assert (out["stored"], out["count"], out["lanes"]) == (4, "4 of 4 done", 4)
    found = list(page.read(out["json"], "ann.json"))
    assert all(isinstance(r, Ranking) and r.labeller == "ann" and r.at for r in found)
    expected = [[2, 1, 3, 2], [4, 1, 2, 2], [1, 1, 3, 4]]
    assert [r.task for r in found] == [t.task for t in TASKS]
    for ranking, names, ranks in zip(found, out["shown"], expected, strict=False):
        assert ranking.ranks == dict(zip(names, ranks, strict=True))
    assert found[0].confidence == 0.75 and found[0].comment == 'say "no"' and found[3].skipped == page.SKIP[0]


def test_a_saved_file_is_gone_on_with_and_newer_answers_stay(drive):
    names = TASKS[1].names
    whole = {"task": TASKS[1].task, "ranks": dict.fromkeys(names, 1), "comment": "old", "at": "2020-01-01T00:00:00Z"}
    half = {"task": TASKS[2].task, "ranks": {TASKS[2].names[0]: 2}, "skipped": "", "at": "2020-01-01T00:00:00Z"}
    mine = {"task": TASKS[0].task, "ranks": dict.fromkeys(TASKS[0].names, 4), "at": "2020-01-01T00:00:00Z"}
    file = {"format": page.FORMAT, "version": 1, "labeller": "bea", "rankings": [whole, mine, None], "open": [half]}
    out = drive(f"""
        key_("1"); key_("2"); key_("3"); key_("4");
        const told = await choose({json.dumps(json.dumps(file))}); byId("told").textContent = "";
        const bad = await choose("<html>");
        byId("todo").click(); const place = byId("place").textContent;
        return {{ told, bad, place, json: await saved() }};
    """)
    assert out["told"] == "2 taken from the file" and out["bad"] == "not a JSON file"
    assert out["place"].startswith("3 / 4")  # the first that is not done
    assert out["json"]["labeller"] == "bea"
    assert [r["task"] for r in out["json"]["rankings"]] == [TASKS[0].task, TASKS[1].task]
    assert sorted(out["json"]["rankings"][0]["ranks"].values()) == [1, 2, 3, 4]
    assert [r["task"] for r in out["json"]["open"]] == [TASKS[2].task]


def test_the_page_asks_the_network_for_nothing():
    text = page.write([TASKS[0]], "ann", 1, "s").replace(page.in_script(HOSTILE)[1:-1], "")
    assert "default-src 'none'" in text
    assert not any(word in text for word in ("http://", "https://", "src=", "url(", "@import", "fetch("))
