"""What is told of a session that is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from dataproc.database.records import Reason, Session, State, over
from dataproc.database.tables import metadata, micros, moment

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _session(state: State, reason: Reason | None = None, ended_at: datetime | None = None) -> Session:
    return Session("s", "k", state, NOW - HOUR, NOW + HOUR, reason, ended_at)


def test_an_open_session_is_not_over() -> None:
    """While its fixed clock runs it takes calls."""
    assert over(_session("open"), NOW + HOUR - timedelta(microseconds=1)) is None


def test_it_is_over_when_its_clock_has_run_out() -> None:
    """Nobody need have noticed: the instant itself counts, and is told."""
    error = over(_session("open"), NOW + HOUR)
    assert error is not None
    assert error.data == {"reason": "expired", "ended_at": "2026-01-31T10:30:00.000Z"}


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ("closing", "closed", "closing"),
        ("closing", "revoked", "revoked"),
        ("closing", "expired", "expired"),
        ("closing", "idle", "idle"),
        ("ended", "closed", "closed"),
        ("ended", "revoked", "revoked"),
        ("ended", "expired", "expired"),
        ("ended", "idle", "idle"),
    ],
)
def test_the_reason_is_told(state: State, reason: Reason, told: str) -> None:
    """Only a session that its owner is closing says `closing`; and the message says what to do."""
    error = over(_session(state, reason, NOW), NOW)
    assert error is not None
    assert error.data == {"reason": told, "ended_at": "2026-01-31T09:30:00.000Z"}
    assert "open a new one, and delete the token" in error.message


def test_a_moment_survives_the_database_to_the_microsecond() -> None:
    """Moments are whole microseconds, before 1970 too."""
    for each in (NOW + timedelta(microseconds=1), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)):
        assert moment(micros(each)) == each


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgresql"])
def test_the_tables_are_no_single_dialects(dialect: object) -> None:
    """Every table and index can be made on both."""
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect))  # type: ignore[arg-type]
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))  # type: ignore[arg-type]
