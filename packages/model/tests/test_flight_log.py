"""The flight log: written at once, once, in order; unreadable lines are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater_model._contracts.errors import UserError
from headwater_model.flight_log import NAME, WHAT, Event, FlightLog, changes, read

values = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none())
events = st.builds(
    Event,
    st.integers(0, 10**9),
    st.sampled_from(WHAT),
    st.text(),
    st.integers(0, 99),
    st.dictionaries(st.text(), values, max_size=3),
)


@given(st.lists(events, max_size=5))
@settings(max_examples=25)  # each event is flushed to the disk
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, made: list[Event]) -> None:
    folder = tmp_path_factory.mktemp("flight")
    log = FlightLog(folder)
    for event in made:
        log.add(event)
    again = FlightLog(folder)
    once = [event for i, event in enumerate(made) if event not in made[:i]]
    assert again.events == log.events == once
    assert (folder / NAME).exists() == bool(made)


def test_an_event_that_comes_twice_stands_once(tmp_path: Path) -> None:
    log = FlightLog(tmp_path)
    event = Event(7, "skip", "the loss is 9.1, 6 deviations above its mean")
    assert log.add(event) and not log.add(event)
    assert not FlightLog(tmp_path).add(event)
    assert len((tmp_path / NAME).read_text().splitlines()) == 1


def test_a_step_after_a_rollback_is_another_place(tmp_path: Path) -> None:
    log = FlightLog(tmp_path)
    log.add(Event(7, "change", "", 0, {"set": {"optimizer.lr": 1e-3}}))
    assert log.changes_at(0, 7) and not log.changes_at(1, 7) and not log.changes_at(0, 8)


def test_the_log_holds_no_times_and_the_journal_does(tmp_path: Path) -> None:
    log = FlightLog(tmp_path)
    log.add(Event(3, "rollback", "spike"))
    log.note({"what": "restart", "why": "rank 1 died"})
    assert "time" not in (tmp_path / NAME).read_text()
    assert [json.loads(line)["what"] for line in log.journal.read_text().splitlines()] == ["rollback", "restart"]
    assert changes(log.events) == []


@pytest.mark.parametrize("line", ["{", '{"step": 1}', '{"step": 1, "what": "fly", "why": ""}', "[]"])
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(Event(1, "stop", "").line() + line + "\n")
    with pytest.raises(UserError, match="line 2: no event"):
        read(tmp_path / NAME)
