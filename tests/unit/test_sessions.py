"""What may be asked for when a session is opened."""

from __future__ import annotations

import json

import pytest

from dataproc.database.opening import check_names, lifetime
from dataproc.errors import InvalidParams
from dataproc.settings import Settings

SETTINGS = Settings(max_expires_in=5_000_000, _env_file=None)


@pytest.mark.parametrize(("asked", "seconds"), [(None, 2592000), (1, 1), (60.0, 60), (5_000_000, 5_000_000)])
def test_lives_that_are_granted(asked: object, seconds: int) -> None:
    """Whole seconds up to the maximum; JSON does not tell 60 from 60.0; null is the default."""
    granted = lifetime(asked, SETTINGS)
    assert granted == seconds
    assert type(granted) is int


@pytest.mark.parametrize(
    "asked", ["0", "-1", "1.5", "true", "false", '"60"', '""', "5000001", "1e400", "-1e400", "[]", "{}", "1e300", "0.0"]
)
def test_lives_that_are_refused(asked: str) -> None:
    """The error names the field, whatever JSON was sent."""
    with pytest.raises(InvalidParams) as refused:
        lifetime(json.loads(asked), SETTINGS)
    assert refused.value.data["errors"][0]["loc"] == ["expires_in"]


def test_the_default_obeys_the_maximum() -> None:
    """An administrator who sets a short maximum need not set the default too."""
    assert lifetime(None, Settings(max_expires_in=10, _env_file=None)) == 10


@pytest.mark.parametrize("name", ["", "a\nb", "nul\0", "\ud800", "x" * 201])
def test_names_that_are_refused(name: str) -> None:
    """A name can be printed on one line and kept by any database."""
    with pytest.raises(InvalidParams) as refused:
        check_names(name, None)
    assert refused.value.data["errors"][0]["loc"] == ["name"]


@pytest.mark.parametrize("labels", [{"a": "\0"}, {"\ud800": "a"}, {str(n): "" for n in range(65)}, {"a": "x" * 201}])
def test_labels_that_are_refused(labels: dict[str, str]) -> None:
    """Labels are few and short."""
    with pytest.raises(InvalidParams) as refused:
        check_names("good", labels)
    assert refused.value.data["errors"][0]["loc"] == ["labels"]
