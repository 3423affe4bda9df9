"""What every test starts from: a process that carries no settings of the machine it runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.s3 import S3

for _name in [name for name in os.environ if name.startswith(("DATAPROC_", "AWS_"))]:
    del os.environ[_name]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server, shared by the tests of one process."""
    from tests.s3 import serving

    with serving() as server:
        yield server
