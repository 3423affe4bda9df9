"""What several files of these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.s3 import S3, Gate

if TYPE_CHECKING:
    from tests.integration.test_cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path, s3: S3) -> Iterator[Cluster]:
    """A bucket, a database, a key, and no server yet."""
    from tests.integration.test_cluster import Cluster

    with ExitStack() as stack:
        yield Cluster(tmp_path, s3, stack)


@pytest.fixture
def gate(s3: S3) -> Iterator[Gate]:
    """What may go wrong before the store."""
    with Gate(s3) as gate:
        yield gate
