"""Promise: a run gains no privilege: it is an unprivileged user with no capability, and stays that."""

from __future__ import annotations

import os


def test_every_way_up_is_closed(session):
    """No uid, no namespace, no mount, no device, no limit, no setuid program brings anything."""
    told = session.exec("prober.privileges")
    assert "worked" not in told.values(), told
    assert told["move a mount"] == "EPERM"  # for want of a capability; with one it would be these mounts' EINVAL


def test_the_kernel_says_so(session):
    """No capability in any set, no new privileges, filters in force, and an ordinary uid inside and outside."""
    status = session.exec("prober.whoami")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "0" not in status["Uid"].split()
    assert "0" not in status["Gid"].split()
    assert "0" not in status["Groups"].split()


def test_it_is_an_ordinary_user_for_the_machine(session, server, uid):
    """What it writes belongs to an unprivileged uid on the disk."""
    session.exec("prober.write", path="/session/mine")
    owner = (session.files / "mine").stat().st_uid
    assert owner != 0
    assert owner == (uid if uid is not None else 64999 if os.getuid() == 0 else os.getuid())
