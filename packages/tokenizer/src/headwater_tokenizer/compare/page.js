"use strict";
document.body.classList.add("scripted");

for (const table of document.querySelectorAll(".sortable")) {
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("th");
    if (!head || !event.target.closest("button")) return;
    const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("n"));
    table.querySelectorAll("[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[head.cellIndex].dataset.v;
    const order = (a, b) => head.classList.contains("n") ? a - b : a.localeCompare(b);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter(row => !row.classList.contains("group"));
      const [full, empty] = [rows.filter(row => value(row) !== undefined), rows.filter(row => value(row) === undefined)];
      full.sort((a, b) => order(value(a), value(b)) * (down ? -1 : 1));
      body.append(...full, ...empty);
    }
  });
}

const source = document.getElementById("data");
if (source) {
  const data = JSON.parse(source.textContent);
  const odd = new RegExp("([ \\t\\n]|[" + data.odd + "])", "u");
  const utf8 = new TextEncoder();
  const text8 = new TextDecoder("utf-8", { ignoreBOM: true });
  const classes = { " ": "b", "\t": "t", "\n": "n" };
  const boxes = { left: [], right: [] };
  const at = id => document.getElementById(id);

  function visible(parent, text) {
    text.split(odd).forEach((part, i) => {
      if (i % 2 === 0) { if (part) parent.append(part); return; }
      const mark = document.createElement("i");
      mark.className = classes[part] || "u";
      if (classes[part]) mark.append(part);
      else mark.dataset.c = "U+" + part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      parent.append(mark);
    });
  }

  function hex(bytes) {
    const shown = [...bytes.subarray(0, data.shown_bytes)].map(byte => byte.toString(16).padStart(2, "0")).join(" ");
    return shown + (bytes.length > data.shown_bytes ? " …" : "");
  }

  function told(ids, parts, unknown) {
    const names = ids.map(id => (id === unknown ? "unknown, id " : "id ") + id);
    if (parts.length > 1) return parts.length + " tokens: " + names.map((name, i) => name + " (" + (hex(parts[i]) || "no byte") + ")").join(", ");
    const size = parts[0].length + " byte" + (parts[0].length === 1 ? "" : "s");
    return names[0] + ", " + size + (parts[0].length ? ": " + hex(parts[0]) : "");
  }

  function draw(side) {
    const number = Number(at(side).value), unknown = data.unknown[number];
    const text = data.texts[Number(at("which").value)];
    const cut = data.cuts[Number(at("which").value)][number];
    const bytes = utf8.encode(cut.text === undefined ? text.text : cut.text);
    const pane = at(side + "-text"), made = document.createDocumentFragment(), found = [];
    const inside = place => place < bytes.length && (bytes[place] & 0xC0) === 0x80;
    let place = 0;
    for (let first = 0, after; first < cut.ids.length; first = after) {
      const start = place + (cut.gaps ? cut.gaps[first] : 0);
      visible(made, text8.decode(bytes.subarray(place, start)));
      const parts = [];
      place = start;
      after = first;
      do {
        if (after > first && cut.gaps) place += cut.gaps[after];
        parts.push(bytes.subarray(place, place + cut.sizes[after]));
        place += cut.sizes[after++];
      } while (after < cut.ids.length && (inside(place) || cut.sizes[after] === 0));
      const box = document.createElement("span");
      const ids = cut.ids.slice(first, after);
      box.className = "c" + found.length % data.hues + (parts.length > 1 ? " cut" : "") + (start === place ? " none" : "") + (unknown !== null && ids.includes(unknown) ? " unk" : "");
      if (parts.length > 1) box.dataset.n = parts.length;
      box.title = told(ids, parts, unknown);
      visible(box, text8.decode(bytes.subarray(start, place)));
      made.append(box);
      // Where it stands in the text as it was given: [first byte, byte after the last].
      const range = cut.origin
        ? [Math.min(...ids.map((_, i) => cut.origin[2 * (first + i)])), Math.max(...ids.map((_, i) => cut.origin[2 * (first + i) + 1]))]
        : [start, place];
      found.push({ box, range });
    }
    visible(made, text8.decode(bytes.subarray(place)));
    pane.replaceChildren(made);
    at(side + "-told").textContent = cut.told;
    boxes[side] = found;
  }

  function light(side, box) {
    const other = side === "left" ? "right" : "left";
    document.querySelectorAll(".lit").forEach(lit => lit.classList.remove("lit"));
    const here = boxes[side].find(one => one.box === box);
    if (!here) return;
    box.classList.add("lit");
    for (const one of boxes[other]) {
      if (one.range[0] < here.range[1] && one.range[1] > here.range[0]) one.box.classList.add("lit");
    }
  }

  for (const side of ["left", "right"]) {
    at(side).addEventListener("change", () => draw(side));
    at(side + "-text").addEventListener("mouseover", event => light(side, event.target.closest("span")));
    at(side + "-text").addEventListener("mouseleave", () => light(side, null));
    at(side + "-text").addEventListener("scroll", event => {
      const other = at((side === "left" ? "right" : "left") + "-text"), own = event.target;
      if (own.matches(":hover")) other.scrollTop = own.scrollTop / Math.max(1, own.scrollHeight - own.clientHeight) * (other.scrollHeight - other.clientHeight);
    });
    draw(side);
  }
  at("which").addEventListener("change", () => { draw("left"); draw("right"); });
}
