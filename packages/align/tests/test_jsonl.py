"""JSON lines come back as they were, whatever text is in them."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_align import jsonl

TEXT = st.text() | st.sampled_from(["\u2028", "\u0085", "\x0c", "a\r\nb", "\ud800"])


@settings(max_examples=25)  # each waits for the disk
@given(st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=3), max_size=4))
def test_records_come_back_as_they_were_one_a_line(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"  # one file: each example writes it anew
    jsonl.write(path, rows)
    assert jsonl.read(path) == rows
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == rows
