"""Settings say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from dataproc.settings import Settings, unknown_variables


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("box", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """Only addresses that stay on this machine count as loopback; a name that is not known counts as open."""
    assert Settings(_env_file=None, host=host).loopback is loopback


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70000},
        {"run_timeout": 0},
        {"storage_url": ""},
        {"storage_url": "s3://bucket"},
        {"tls_cert": "cert.pem"},
        {"credential_cache": 2},
        {"warm_memory": 0},
        {"gateway_peers": "10.0.0.0/8, 10.0.0.0/99"},
        {"gateway_peers": "unix:root"},
        {"forwarded_allow_ips": "proxy"},
    ],
)
def test_refused(wrong: dict[str, object]) -> None:
    """Values out of their bounds, and settings that need another, are refused."""
    with pytest.raises(ValidationError):
        Settings(_env_file=None, **wrong)  # type: ignore[arg-type]


def test_words_are_taken_in_any_case() -> None:
    """`INFO` is what other programs call a level."""
    settings = Settings(_env_file=None, log_level="INFO", log_format="Json", sandbox="AUTO")
    assert (settings.log_level, settings.log_format, settings.sandbox) == ("info", "json", "auto")


def test_files_are_named_in_env_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of `.env` names a secret's file, and the TOML file, as a variable does; a variable wins."""
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("DATAPROC_GATEWAY_SECRET_FILE=secret\nDATAPROC_CONFIG=config.toml\n")
    Path("secret").write_text("hush\n")
    Path("config.toml").write_text("queue_limit = 7\n")
    Path("other.toml").write_text("queue_limit = 8\n")
    settings = Settings()
    assert settings.gateway_secret is not None
    assert (settings.gateway_secret.get_secret_value(), settings.queue_limit) == ("hush", 7)
    monkeypatch.setenv("DATAPROC_CONFIG", "other.toml")
    assert Settings().queue_limit == 8


def test_misspelt_variables_are_named() -> None:
    """A variable with our prefix that is no setting is named; those of clients and secret files are known."""
    environ = {
        "DATAPROC_PORT": "",
        "DATAPROC_PROT": "",
        "DATAPROC_URL": "",
        "DATAPROC_GATEWAY_SECRET_FILE": "",
        "PATH": "",
    }
    assert unknown_variables(environ) == ["DATAPROC_PROT"]


def test_secrets_are_not_shown() -> None:
    """The text of the settings holds no secret."""
    settings = Settings(_env_file=None, gateway_secret="hush", database_url="postgresql://me:hush@host/db")
    assert "hush" not in repr(settings)
