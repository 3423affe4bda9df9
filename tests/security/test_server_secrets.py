"""Promise: a run sees nothing of the server: no database, no setting, no secret, no key, no token."""

from __future__ import annotations

import os
from pathlib import Path

SECRET = "the-gateway-secret-of-these-tests"


def test_the_files_of_the_server_cannot_be_opened(session, server):
    """Not its database, its log, its code beyond the author's API, nor the machine's secrets."""
    import dataproc

    package = Path(dataproc.__file__).parent
    for path in (
        *server.storage.glob("dataproc.db*"),
        server.folder / "server.log",
        package / "settings.py",
        package / "access/keys.py",
        "/etc/shadow",
        "/etc/sudoers",
        "/root/.bash_history",
        f"/proc/{server.process.pid}/environ",
        "/proc/kcore",
        "/dev/mem",
        "/dev/vda",
        "/dev/sda",
    ):
        assert session.exec("prober.read", path=str(path))["outcome"] != "worked", path


def test_the_environment_is_clean(session, server):
    """No setting and no secret of the server's environment came along, not even in what the kernel remembers."""
    told = session.exec("prober.environment")
    text = repr(told)
    assert SECRET not in text
    assert "DATAPROC_" not in text
    assert "AWS_" not in text
    assert str(server.folder) not in text


def test_no_secret_is_in_its_memory(session, server):
    """The worker's memory, a copy of its zygote's, has no secret, no key and no token."""
    needles = [SECRET, server.key["Secret"], session.token, str(server.storage)]
    told = session.exec("prober.memory_of_own", needles=[needle[::-1] for needle in needles])
    assert told == {needle[::-1]: False for needle in needles}


def test_an_error_shows_no_path_of_the_server(session, server):
    """What a failing method tells names fixed places alone."""
    error = session.error("crasher.liar")
    text = repr([error.message, error.data])
    assert str(server.folder) not in text
    assert os.path.dirname(__file__) not in text
    assert error.data["type"] == "LyingError"


def test_mounts_name_no_session(session, server):
    """What the kernel tells of the mounts gives no other session's id away."""
    other = server.open_session()
    other.exec("chatterbox.echo", value="x")
    for name in ("mountinfo", "mounts", "mountstats", "maps", "cgroup"):
        told = session.exec("prober.read", path=f"/proc/self/{name}")
        assert other.id not in told.get("text", ""), name
