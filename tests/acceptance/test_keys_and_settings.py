"""The administrator's commands: keys, settings, doctor."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import Shell, call, headers, until


def test_a_key_lives_and_is_revoked(shell: Shell) -> None:
    """A key made beside the server works at once; revoked, it is refused within seconds; its secret is never listed."""
    with shell.serve() as served:
        url = f"{served.url}/api/v1/dataproc/jsonrpc"
        key = shell.key()
        version = call("dataproc.get_server_version")
        assert "result" in httpx.post(url, json=version, headers=headers(key)).json()
        listed = shell.run("key", "list", "-o", "json").stdout
        assert key["id"] in listed
        assert key["secret"] not in listed
        assert shell.run("key", "revoke", key["id"]).returncode == 0
        until(lambda: httpx.post(url, json=version, headers=headers(key)).status_code == 401)
        assert key["secret"] not in served.log.read_text()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"DATAPROC_PORT": "eighty"}, "DATAPROC_PORT: "),
        ({"DATAPROC_SANDBOX": "maybe", "DATAPROC_PORT": "-1"}, "DATAPROC_SANDBOX: "),
        ({"DATAPROC_STORAGE_URL": "s3://bucket"}, "DATAPROC_DATABASE_URL"),
        ({"DATAPROC_TLS_CERT": "cert.pem"}, "DATAPROC_TLS_KEY"),
        ({"DATAPROC_CONFIG": "nowhere.toml"}, "nowhere.toml"),
        ({"DATAPROC_GATEWAY_SECRET_FILE": "nowhere"}, "nowhere"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "doctor", "key list"])
def test_wrong_settings(shell: Shell, command: str, env: dict[str, str], told: str) -> None:
    """A wrong setting is told under the name that the user set, without a traceback, with exit code 2."""
    refused = shell.run(*command.split(), **env)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_settings_come_from_files(shell: Shell) -> None:
    """The environment wins over `.env`, `.env` over secret files, those over TOML."""
    (shell.folder / "config.toml").write_text(
        'warm_workers = 1\nqueue_limit = 2\nbatch_limit = 3\ngateway_secret = "toml"\n'
    )
    (shell.folder / ".env").write_text("DATAPROC_WARM_WORKERS=10\nDATAPROC_QUEUE_LIMIT=20\n")
    (shell.folder / "secret").write_text("in the file\n")
    more = {"DATAPROC_CONFIG": "config.toml", "DATAPROC_GATEWAY_SECRET_FILE": "secret", "DATAPROC_WARM_WORKERS": "100"}
    report = json.loads(shell.run("doctor", "-o", "json", **more).stdout)
    shown = {each["name"]: each["value"] for each in report["settings"]}
    names = ("WARM_WORKERS", "QUEUE_LIMIT", "BATCH_LIMIT")
    assert [shown[f"DATAPROC_{name}"] for name in names] == [100, 20, 3]


def test_doctor(shell: Shell) -> None:
    """It tells each layer with a remedy where one is missing, shows no secret, names variables that are no setting."""
    more = {"DATAPROC_GATEWAY_SECRET": "hush-hush", "DATAPROC_PROT": "1"}
    said = shell.run("doctor", "-o", "json", **more)
    report = json.loads(said.stdout)
    assert said.returncode == (0 if report["ok"] else 1)
    assert all(layer["in_force"] or layer["remedy"] for layer in report["sandbox"])
    assert [check["ok"] for check in report["checks"]] == [True, True]
    assert report["unknown"] == ["DATAPROC_PROT"]
    table = shell.run("doctor", **more)
    for text in (said.stdout, table.stdout, table.stderr):
        assert "hush-hush" not in text


def test_doctor_where_nothing_works(shell: Shell) -> None:
    """A storage folder that cannot be made is told as a check that fails, not as an error."""
    (shell.folder / "file").touch()
    said = shell.run("doctor", "-o", "json", DATAPROC_STORAGE_URL=str(shell.folder / "file" / "storage"))
    assert said.returncode == 1
    assert not any(check["ok"] for check in json.loads(said.stdout)["checks"])


def test_help_everywhere(shell: Shell) -> None:
    """Every command explains itself, and one without its verb shows the verbs."""
    for words in ("", "serve", "key", "key create", "exec", "session", "file", "doctor"):
        assert "Usage" in shell.run(*words.split(), "--help").stdout


def test_light_commands_import_little(tmp_path: Path) -> None:
    """`dataproc version` and the client verbs start without the server's libraries."""
    import subprocess
    import sys

    heavy = "fastapi sqlalchemy uvicorn pydantic structlog alembic prometheus_client"
    code = f"import sys, dataproc.cli, dataproc.cli.remote; print([n for n in {heavy.split()} if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout.strip() == "[]"
