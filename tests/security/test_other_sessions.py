"""Promise: no run reads or changes a file of another session, by whatever name it asks for it."""

from __future__ import annotations

import pytest

REFUSED = {"EACCES", "ENOENT", "EPERM", "EROFS", "EXDEV", "ENOTDIR"}


@pytest.fixture
def secret(server):
    """A file of somebody else's session, and that session."""
    other = server.open_session()
    assert other.exec("prober.write", path="/session/secret.txt", text="mine alone") == "worked"
    assert (other.files / "secret.txt").read_text() == "mine alone"
    return other.files / "secret.txt"


def names(path, files):
    """Ways to write the path: absolute, climbing out of the session, through what /proc links to."""
    return [
        str(path),
        f"/session/../..{path}",
        f"/session/../{path.parent.parent.name}/files/{path.name}",
        f"../../../../../../..{path}",
        f"/proc/1/root{path}",
        f"/proc/self/root{path}",
        f"/proc/self/cwd/../../..{path}",
        f"/proc/self/fd/3/..{path}",
        f"/session/{path.relative_to(files.parent.parent.parent)}",
    ]


def test_it_cannot_be_read(session, secret):
    """No name of the file opens it."""
    for name in names(secret, secret.parent):
        assert session.exec("prober.read", path=name)["outcome"] in REFUSED, name


def test_it_cannot_be_changed(session, secret):
    """No name of the file lets it be written, truncated, renamed, removed or given other modes."""
    told = session.exec("prober.writes", paths=names(secret, secret.parent))
    assert set(told.values()) <= REFUSED, {name: one for name, one in told.items() if one not in REFUSED}
    assert secret.read_text() == "mine alone"
    assert not secret.with_name("planted").exists()


def test_its_folder_cannot_be_listed(session, secret, server):
    """Neither the folder, nor those above it, nor the storage."""
    for folder in (secret.parent, *list(secret.parents)[:5], server.storage, server.folder):
        assert session.exec("prober.listing", path=str(folder)) == [], folder


@pytest.mark.parametrize("target", ["file", "folder", "climbing", "proc"])
def test_a_symbolic_link_that_was_planted_leads_nowhere(session, secret, target):
    """A link in the session directory that points at it does not open it, for a later run either."""
    to = {
        "file": str(secret),
        "folder": str(secret.parent),
        "climbing": "../" * 12 + str(secret)[1:],
        "proc": f"/proc/1/root{secret}",
    }[target]
    assert session.exec("prober.plant", target=to, name="link") == "worked"
    name = "/session/link/secret.txt" if target == "folder" else "/session/link"
    assert session.exec("prober.read", path=name)["outcome"] in REFUSED
    assert session.exec("prober.write", path=name) in REFUSED
    assert secret.read_text() == "mine alone"


def test_a_link_planted_by_another_hand_leads_nowhere(session, secret):
    """Nor does one that was put there from outside, with the server's own rights."""
    session.exec("chatterbox.echo", value="so that the directory is there")
    (session.files / "given").symlink_to(secret)
    assert session.exec("prober.read", path="/session/given")["outcome"] in REFUSED


def test_a_hard_link_cannot_be_made(session, secret):
    """There is no name to make it from."""
    told = {name: session.exec("prober.plant", target=name, name="hard", hard=True) for name in names(secret, secret)}
    assert set(told.values()) <= REFUSED
    assert secret.stat().st_nlink == 1


def test_nothing_of_it_is_anywhere_in_the_tree(session, secret):
    """A walk over every folder that a run can see meets neither the file nor a name of another session."""
    session.exec("prober.write", path="/session/my-own")
    roots = ["/session", "/session/..", "/application", "/work", "/locks", "/module", "/tmp", "/dev", "/opt", "/mnt"]
    roots += ["/", "/var", "/home", "/proc/self/root", "/proc/self/cwd", "/proc/1/root", "/proc/1/cwd"]
    other = secret.parent.parent.name
    assert session.exec("prober.find", roots=roots, needles=["my-own", "secret.txt", other]) == ["/session/my-own"]


def test_two_modules_of_one_session_share_it_and_others_do_not(session, secret):
    """The session directory is one for all modules of a session: that is not a leak, and it ends there."""
    session.exec("prober.write", path="/session/note", text="hello")
    assert session.exec("globals.append", line="x") == 1
    assert session.exec("prober.listing", path="/session") == ["lines.txt", "note"]
    assert [path.name for path in secret.parent.iterdir()] == ["secret.txt"]
