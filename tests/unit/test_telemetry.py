"""Log lines hold no secrets, and metrics hold what happened."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from dataproc.telemetry import REDACTED, LogFormat, Metrics, audit, configure_logging


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged as JSON at `info`; the logging of the process is put back afterwards."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    configure_logging("json", "info", written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**before)


def _last(lines: io.StringIO) -> dict[str, object]:
    line: dict[str, object] = json.loads(lines.getvalue().splitlines()[-1])
    return line


def test_lines_have_one_form(lines: io.StringIO) -> None:
    """What a line tells stands under its names, in those of libraries too."""
    structlog.get_logger("ours").info("told", count=1)
    assert {"event": "told", "count": 1, "level": "info", "logger": "ours"}.items() <= _last(lines).items()
    logging.getLogger("uvicorn.error").warning("theirs %d", 2)
    assert {"event": "theirs 2", "level": "warning", "logger": "uvicorn.error"}.items() <= _last(lines).items()


@pytest.mark.parametrize(
    "name", ["secret", "Secret", "apikey", "api_key", "token", "access_token", "Authorization", "password"]
)
def test_secrets_are_blanked(lines: io.StringIO, name: str) -> None:
    """A member whose name says that it is secret is blanked at any depth."""
    structlog.get_logger().info("told", **{name: "hush"}, nested={"list": [{name: "hush"}]})
    assert _last(lines)[name] == REDACTED
    assert "hush" not in lines.getvalue()


def test_passwords_in_urls_are_blanked(lines: io.StringIO) -> None:
    """A URL is shown without its password, in members, in the text of libraries and in tracebacks."""
    structlog.get_logger().info("told", where="postgresql://me:hush@host/db")
    logging.getLogger("theirs").error("cannot reach %s", "postgresql://me:hush@host/db")
    try:
        raise ValueError("postgresql://me:hush@host/db")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError" in lines.getvalue()
    assert "hush" not in lines.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_variables(lines: io.StringIO, form: LogFormat) -> None:
    """A traceback is told without the values of local variables, and without passwords of URLs."""
    configure_logging(form, "info", lines)
    local = "".join(["hu", "sh"])
    try:
        raise ValueError("at postgresql://me:sesame@host/db")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("theirs").exception("failed")
    assert lines.getvalue().count("ValueError: at") == 2
    assert "sesame" not in lines.getvalue()
    assert local not in lines.getvalue()


def test_audit_is_never_silenced(lines: io.StringIO) -> None:
    """The audit stream is written whatever the level."""
    configure_logging("json", "error", lines)
    structlog.get_logger().info("silent")
    audit.info("key_created", key="k-1")
    assert {"event": "key_created", "logger": "dataproc.audit"}.items() <= _last(lines).items()
    assert "silent" not in lines.getvalue()


def test_console_lines_are_for_people(lines: io.StringIO) -> None:
    """The other format is text in one line."""
    configure_logging("console", "info", lines)
    structlog.get_logger().info("told", count=1)
    assert "count=1" in lines.getvalue()


def test_counted() -> None:
    """What was counted stands in the exposition, under the names that operators know."""
    metrics = Metrics()
    metrics.rpc("dataproc.exec", "ok", 0.002)
    metrics.rpc("dataproc.exec", "ok", 0.002)
    metrics.run("tabular", "sql", "completed", 0.1)
    metrics.queue_wait(0)
    metrics.sessions("open", 3)
    metrics.session_ended("idle")
    metrics.workers("idle", 2)
    metrics.storage_operation("file", "read", 0.1)
    metrics.rejected("queue")
    metrics.build("1.2.3")
    text = metrics.exposition().decode()
    for line in (
        'dataproc_rpc_requests_total{method="dataproc.exec",outcome="ok"} 2.0',
        'dataproc_rpc_request_duration_seconds_count{method="dataproc.exec"} 2.0',
        'dataproc_runs_total{method="sql",module="tabular",outcome="completed"} 1.0',
        "dataproc_queue_wait_seconds_count 1.0",
        'dataproc_sessions{state="open"} 3.0',
        'dataproc_session_ends_total{reason="idle"} 1.0',
        'dataproc_workers{state="idle"} 2.0',
        'dataproc_storage_operations_seconds_count{backend="file",op="read"} 1.0',
        'dataproc_quota_rejections_total{kind="queue"} 1.0',
        'version="1.2.3"',
    ):
        assert line in text
