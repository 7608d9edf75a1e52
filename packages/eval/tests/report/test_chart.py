"""Pictures: scales that cover the data, lines that keep their spikes, a layout without overlaps."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from headwater_eval.report import chart, lineage
from headwater_eval.report.inputs import chosen
from headwater_eval.report.units import cut, number, safe_text

FINITE = st.floats(-1e9, 1e9, allow_subnormal=False)
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(FINITE, st.floats(1e-6, 1e9))
def test_ticks_rise_cover_the_range_and_are_few(low, span):
    high = low + span
    if high <= low:
        return
    made = chart.ticks(low, high)
    assert made == sorted(set(made)) and 2 <= len(made) <= 14
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert made[0] <= low + slack and made[-1] >= high - slack


@given(st.floats(1e-6, 1e6), st.floats(1.0, 1e6))
def test_log_ticks_cover_the_range(low, ratio):
    made = chart.log_ticks(low, low * ratio)
    assert made[0] <= low * 1.000001 and made[-1] >= low * ratio * 0.999999


@given(st.lists(FINITE, min_size=1, max_size=500), st.integers(4, 60))
def test_thinning_keeps_order_extremes_and_ends(values, most):
    points = [(float(i), v) for i, v in enumerate(values)]
    kept = chart.thin(points, most)
    assert len(kept) <= most + 2
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert {min(values), max(values)} <= {y for _, y in kept}


@given(
    st.lists(st.tuples(ANY_FLOAT, ANY_FLOAT), max_size=20),
    st.text(max_size=20),
    st.booleans(),
    st.sampled_from((336, 720)),
)
def test_any_values_and_names_give_well_formed_svg(points, name, log_y, width):
    one = chart.Series(name, points, marked=True)
    svg = chart.lines(width, name, [one, one], name, name, [chart.Level(name, 1.0)], log_y)
    assert "nan" not in _attributes(svg) and "inf" not in _attributes(svg)
    rows = [(name, [chart.Interval(0.5, 0.4, 0.6), None], 0.5), (name, [None, None], None)]
    _attributes(chart.dots(width, name, [name, name], rows, name))
    _attributes(chart.bars(width, name, [(name, y, name) for _, y in points]))


def _attributes(svg) -> str:
    """Every attribute value of a picture but its name, which must parse as XML."""
    root = ElementTree.fromstring(str(svg))
    return " ".join(v for e in root.iter() for k, v in e.attrib.items() if k not in ("aria-label", "class"))


def test_moving_average_passes_over_what_is_not_finite():
    assert chart.moving_average([1.0, math.nan, 3.0, 5.0], 2) == [1.0, 1.0, 2.0, 4.0]


@st.composite
def graphs(draw) -> tuple[list[str], list[tuple[str, str]]]:
    """Names and edges that go from an earlier name to a later one."""
    names = [f"n{i}" for i in range(draw(st.integers(1, 12)))]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return names, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


@given(graphs())
def test_lineage_puts_makers_above_and_nothing_overlaps(graph):
    names, edges = graph
    layer = lineage.layers(names, edges)
    assert all(layer[a] < layer[b] for a, b in edges)
    rows, wires = lineage.with_trunks(layer, edges)
    assert all(b[1] == a[1] + 1 for a, b in wires), "a wire joins neighbouring layers"
    before = lineage.crossings(rows, wires)
    rows = lineage.ordered(rows, wires)
    assert lineage.crossings(rows, wires) <= before
    widths = {p: 82 if layer[p[0]] == p[1] else 8 for row in rows for p in row}
    x = lineage.placed(rows, wires, widths, 2000)
    for row in rows:
        for left, right in zip(row, row[1:], strict=False):
            assert x[left] + widths[left] / 2 <= x[right] - widths[right] / 2 + 1e-6
        assert all(widths[p] / 2 - 1e-6 <= x[p] <= 2000 - widths[p] / 2 + 1e-6 for p in row)


@given(graphs())
def test_lineage_picture_is_well_formed_on_a_phone_and_on_a_desktop(graph):
    names, edges = graph
    for width in (336, 720):
        ElementTree.fromstring(str(lineage.picture([lineage.Node(n, "<&>", '"told"') for n in names], edges, width)))


@given(st.text())
def test_safe_text_is_utf8_without_control_or_direction_characters(text):
    made = safe_text(text)
    made.encode()
    assert not any(ord(c) < 32 and c not in "\n\t" or c in "\u202a\u202b\u202d\u202e\u2066\u2067\u200b" for c in made)


@given(st.text(), st.integers(1, 30))
def test_cut_text_begins_the_text(text, characters):
    made = cut(text, characters)
    assert made == text or text.startswith(made.removesuffix(" \N{HORIZONTAL ELLIPSIS}"))
    assert len(made) <= characters + 2


def test_numbers_read_as_people_write_them():
    told = {0.00123: "0.00123", 3.14159: "3.142", 1234567.0: "1,234,567", -0.5: "\N{MINUS SIGN}0.5", 0.0: "0"}
    assert {value: number(value) for value in told} == told


def test_a_draw_depends_on_the_key_alone():
    assert chosen("a") == chosen("a") != chosen("b")
