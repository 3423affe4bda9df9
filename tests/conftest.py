"""What every test starts from: a process that carries no settings of the machine it runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgresql import PostgreSQL
    from tests.s3 import S3

for _name in [name for name in os.environ if name.startswith(("DATAPROC_", "AWS_"))]:
    del os.environ[_name]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server, shared by the tests of one process."""
    from tests.s3 import serving

    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, shared by the tests of one process; a test that hurts it starts its own."""
    pytest.importorskip("psycopg")
    from tests.postgresql import serving

    with serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/x.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()
