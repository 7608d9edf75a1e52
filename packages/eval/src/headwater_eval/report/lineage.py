"""The run as a graph: which artefact was made from which, drawn in layers from top to bottom.

Sugiyama's method in four steps: a layer for every node, an order within each layer by barycentres, places by
least squares under the order, curves. One departure: everything that leaves a node runs in one trunk, from
which each consumer branches off, since an artefact that many stages read would otherwise hide the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .chart import svg, text_at
from .inputs import Lineage
from .units import safe_text

Edge = tuple[str, str]
# A place in a layer: a node, or the trunk of a node as it passes by: (name, layer).
Place = tuple[str, int]

_SWEEPS = 12
_BOX_HEIGHT, _LAYER_HEIGHT, _TRUNK_WIDTH, _GAP = 34, 62, 8, 10


@dataclass(frozen=True)
class Node:
    """What a box says."""

    name: str
    below: str
    told: str
    """Shown on hover."""


def made_from(lineage: Lineage) -> dict[str, dict[str, str | None]]:
    """Artefact -> its inputs -> the artefact at hand with that hash, or None where it is another one or absent."""
    found: dict[str, dict[str, str | None]] = {}
    for name, artefact in lineage.artefacts.items():
        makers = {given: lineage.maker(digest) for given, digest in artefact.manifest.inputs.items()}
        found[name] = {given: maker.name if maker else None for given, maker in makers.items()}
    return found


def draw(lineage: Lineage, width: int) -> Markup:
    """The artefacts at hand and their edges, by the hashes in their manifests."""
    nodes = [
        Node(name, a.hash[:7], f"{name}: {a.manifest.package} {a.manifest.version} {a.manifest.stage}, {a.hash}")
        for name, a in lineage.artefacts.items()
    ]
    edges = [(m, name) for name, inputs in made_from(lineage).items() for m in inputs.values() if m]
    return picture(nodes, sorted(set(edges)), width)


def picture(nodes: Sequence[Node], edges: Sequence[Edge], width: int) -> Markup:
    """An SVG of boxes and curves, at most `width` pixels wide unless a layer cannot fit."""
    if not nodes:
        return svg(width, 40, "lineage", [text_at(0, 20, "no artefacts")])
    layer = layers([n.name for n in nodes], edges)
    rows, wires = with_trunks(layer, edges)
    rows = ordered(rows, wires)
    box = 124 if width >= 520 else 82
    widths = {place: box if layer[place[0]] == place[1] else _TRUNK_WIDTH for row in rows for place in row}
    least = max(sum(widths[p] for p in row) + _GAP * (len(row) - 1) for row in rows)
    width = max(width, least)
    x = placed(rows, wires, widths, width)
    parts = _curves(wires, layer, x, widths)
    for node in nodes:
        place = (node.name, layer[node.name])
        left, top = x[place] - box / 2, place[1] * _LAYER_HEIGHT + 2
        parts.append(
            Markup(f'<g class="box"><rect x="{left:.1f}" y="{top}" width="{box}" height="{_BOX_HEIGHT}" rx="3"/>')
            + Markup("<title>{0}</title>").format(escape(safe_text(node.told)))
            + text_at(x[place], top + 14, node.name, "box-name", "middle")
            + text_at(x[place], top + 27, node.below, "box-hash", "middle")
            + Markup("</g>")
        )
    return svg(width, (max(layer.values()) + 1) * _LAYER_HEIGHT - _LAYER_HEIGHT + _BOX_HEIGHT + 4, "lineage", parts)


def layers(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Layer of each node: below all that it was made from, as near as can be to what is made from it.

    Raises:
        ValueError: the edges go round in a circle (hashes cannot).
    """
    parents: dict[str, list[str]] = {n: [a for a, b in edges if b == n] for n in names}
    children: dict[str, list[str]] = {n: [b for a, b in edges if a == n] for n in names}
    order: list[str] = []
    while len(order) < len(names):
        free = [n for n in names if n not in order and all(p in order for p in parents[n])]
        if not free:
            raise ValueError("the lineage goes round in a circle")
        order += free
    found: dict[str, int] = {}
    for n in order:
        found[n] = max((found[p] + 1 for p in parents[n]), default=0)
    for n in reversed(order):
        if children[n]:
            found[n] = max(found[n], min(found[c] for c in children[n]) - 1)
    return found


def with_trunks(layer: Mapping[str, int], edges: Sequence[Edge]) -> tuple[list[list[Place]], list[tuple[Place, Place]]]:
    """Rows of places, and wires that each join neighbouring rows."""
    rows: list[list[Place]] = [[] for _ in range(max(layer.values()) + 1)]
    wires: list[tuple[Place, Place]] = []
    for name, own in layer.items():
        rows[own].append((name, own))
    for name, own in layer.items():
        consumers = [b for a, b in edges if a == name]
        for passed in range(own + 1, max((layer[c] for c in consumers), default=0)):
            rows[passed].append((name, passed))
            wires.append(((name, passed - 1), (name, passed)))
        wires += [((name, layer[c] - 1), (c, layer[c])) for c in consumers]
    return rows, wires


def ordered(rows: list[list[Place]], wires: Sequence[tuple[Place, Place]]) -> list[list[Place]]:
    """The rows with few crossings: barycentre sweeps down and up; the best order seen is kept."""
    above: dict[Place, list[Place]] = {}
    below: dict[Place, list[Place]] = {}
    for a, b in wires:
        below.setdefault(a, []).append(b)
        above.setdefault(b, []).append(a)
    rows = [list(row) for row in rows]
    best, fewest = [list(row) for row in rows], crossings(rows, wires)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for i in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            near, neighbours = (rows[i - 1], above) if down else (rows[i + 1], below)
            at = {place: k for k, place in enumerate(near)}
            own = {place: k for k, place in enumerate(rows[i])}

            def centre(place: Place, at: dict = at, own: dict = own, neighbours: dict = neighbours) -> float:
                met = [at[n] for n in neighbours.get(place, []) if n in at]
                return sum(met) / len(met) if met else float(own[place])

            rows[i].sort(key=centre)
        now = crossings(rows, wires)
        if now < fewest:
            best, fewest = [list(row) for row in rows], now
    return best


def crossings(rows: Sequence[Sequence[Place]], wires: Sequence[tuple[Place, Place]]) -> int:
    """How many pairs of wires cross."""
    at = {place: k for row in rows for k, place in enumerate(row)}
    total = 0
    for i in range(len(rows) - 1):
        here = [(at[a], at[b]) for a, b in wires if a[1] == i]
        total += sum((a - c) * (b - d) < 0 for k, (a, b) in enumerate(here) for c, d in here[k + 1 :])
    return total


def placed(
    rows: Sequence[Sequence[Place]], wires: Sequence[tuple[Place, Place]], widths: Mapping[Place, float], width: float
) -> dict[Place, float]:
    """Centre of each place: near its neighbours', trunks straight, in the given order, apart, within `width`."""
    x: dict[Place, float] = {}
    for row in rows:
        free = (width - sum(widths[p] for p in row)) / len(row)
        edge = free / 2
        for place in row:
            x[place] = edge + widths[place] / 2
            edge += widths[place] + free
    # A wire inside a trunk pulls harder than one between boxes (Gansner et al. 1993, section 4: 1, 2 and 8).
    pulls: dict[Place, list[tuple[Place, int]]] = {p: [] for row in rows for p in row}
    for a, b in wires:
        pull = (1, 2, 8)[(widths[a] == _TRUNK_WIDTH) + (widths[b] == _TRUNK_WIDTH)]
        pulls[a].append((b, pull))
        pulls[b].append((a, pull))
    for sweep in range(4 * _SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            weights = [sum(pull for _, pull in pulls[p]) or 1 for p in row]
            wanted = [
                sum(x[other] * pull for other, pull in pulls[p]) / weight if pulls[p] else x[p]
                for p, weight in zip(row, weights, strict=True)
            ]
            for place, centre in zip(row, _apart(wanted, weights, [widths[p] for p in row], width), strict=True):
                x[place] = centre
        _straighten(rows, widths, x)
    margin = (width - max(x[p] + widths[p] / 2 for p in x) - min(x[p] - widths[p] / 2 for p in x)) / 2
    return {place: centre + margin for place, centre in x.items()}


def _straighten(rows: Sequence[Sequence[Place]], widths: Mapping[Place, float], x: dict[Place, float]) -> None:
    """Bring each run of a trunk to one place, as far down as what stands beside it leaves room."""
    run: dict[str, tuple[list[Place], float, float]] = {}  # node -> its trunk so far, and the room that it has
    for row in [*rows, []]:
        passing = {}
        for i, place in enumerate(row):
            if widths[place] == _TRUNK_WIDTH:
                low = x[row[i - 1]] + widths[row[i - 1]] / 2 + _GAP if i else -math.inf
                high = x[row[i + 1]] - widths[row[i + 1]] / 2 - _GAP if i + 1 < len(row) else math.inf
                half = widths[place] / 2
                passing[place[0]] = (place, low + half, high - half)
        for name in list(run):
            if name not in passing or max(run[name][1], passing[name][1]) > min(run[name][2], passing[name][2]):
                _settle(*run.pop(name), x)
        for name, (place, low, high) in passing.items():
            places, above_low, above_high = run.get(name, ([], -math.inf, math.inf))
            run[name] = ([*places, place], max(low, above_low), min(high, above_high))


def _settle(places: Sequence[Place], low: float, high: float, x: dict[Place, float]) -> None:
    middle = min(max(sum(x[p] for p in places) / len(places), low), high)
    x.update(dict.fromkeys(places, middle))


def _apart(wanted: Sequence[float], weights: Sequence[float], widths: Sequence[float], width: float) -> list[float]:
    """The centres nearest to those wanted (least squares) that keep order and gaps: isotonic regression."""
    offsets = [0.0]
    for one, two in zip(widths, widths[1:], strict=False):
        offsets.append(offsets[-1] + (one + two) / 2 + _GAP)
    pools: list[tuple[float, float, int]] = []  # (weighted sum, weight, members) of neighbours that touch
    for centre, offset, weight in zip(wanted, offsets, weights, strict=True):
        pool = ((centre - offset) * weight, weight, 1)
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    flat = [total / weight for total, weight, members in pools for _ in range(members)]
    low, high = widths[0] / 2, width - widths[-1] / 2 - offsets[-1]
    return [min(max(value, low), high) + offset for value, offset in zip(flat, offsets, strict=True)]


def _curves(
    wires: Sequence[tuple[Place, Place]], layer: Mapping[str, int], x: Mapping[Place, float],
    widths: Mapping[Place, float],
) -> list[Markup]:  # fmt: skip
    """A curve a wire between the layers, an arrowhead where it enters a box, a straight line where it passes one."""
    entering: dict[Place, list[Place]] = {}
    for a, b in wires:
        entering.setdefault(b, []).append(a)
    parts = []
    for a, b in wires:
        to_box = layer[b[0]] == b[1]
        y1 = a[1] * _LAYER_HEIGHT + _BOX_HEIGHT + 2
        y2 = b[1] * _LAYER_HEIGHT + 2
        x2 = x[b]
        if to_box:
            ports = sorted(entering[b], key=lambda p: x[p])
            x2 += (ports.index(a) - (len(ports) - 1) / 2) * min(14.0, widths[b] / (len(ports) + 1))
            y2 -= 5
        bend = (y2 - y1) / 2
        path = f"M{x[a]:.1f} {y1:.1f}C{x[a]:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
        path += "" if to_box else f"v{_BOX_HEIGHT}"  # past the boxes of the layer
        parts.append(Markup(f'<path class="wire" d="{path}"/>'))
        if to_box:
            parts.append(Markup(f'<path class="arrow" d="M{x2 - 3.5:.1f} {y2 - 1:.1f}h7l-3.5 6z"/>'))
    return parts
