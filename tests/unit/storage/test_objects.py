"""How the settings become options of the S3 client."""

from __future__ import annotations

import pytest

from dataproc.settings import Settings
from dataproc.storage.object_store.s3 import s3_options


def chosen(**settings: object) -> Settings:
    """Settings on a bucket."""
    return Settings(_env_file=None, storage_url="s3://b/p", database_url="sqlite:///x.db", **settings)  # type: ignore[arg-type]


def addressing(settings: Settings) -> str | None:
    """How the bucket is addressed."""
    style: str | None = s3_options(settings)["config_kwargs"].get("s3", {}).get("addressing_style")
    return style


def test_what_is_not_set_is_left_to_the_client() -> None:
    """Without settings of ours credentials, endpoint and region come from the usual variables."""
    assert set(s3_options(chosen())) == {"config_kwargs"}


def test_settings_win() -> None:
    """What is set goes to the client."""
    options = s3_options(chosen(s3_endpoint="http://x", s3_region="r", s3_access_key_id="k", s3_secret_access_key="s"))
    assert (options["endpoint_url"], options["key"], options["secret"]) == ("http://x", "k", "s")
    assert options["client_kwargs"] == {"region_name": "r"}


@pytest.mark.parametrize(
    ("endpoint", "style", "found"),
    [
        (None, None, None),
        ("https://s3.eu-west-1.amazonaws.com", None, None),
        ("http://localhost:9000", None, "path"),
        ("http://localhost:9000", False, None),
        (None, True, "path"),
    ],
)
def test_addresses(endpoint: str | None, style: bool | None, found: str | None) -> None:
    """A store that is only compatible has its buckets in the path, unless the settings say otherwise."""
    assert addressing(chosen(s3_endpoint=endpoint, s3_path_style=style)) == found


def test_the_usual_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that is named by AWS_ENDPOINT_URL is one, too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert addressing(chosen()) == "path"


def test_checksums_off() -> None:
    """Stores that do not know the newer checksums get and are asked for none."""
    config = s3_options(chosen(s3_checksums=False))["config_kwargs"]
    assert config["request_checksum_calculation"] == config["response_checksum_validation"] == "when_required"
