"""Promise: a run reaches no socket of the machine or beyond it: by TCP, UDP, unix paths, pairs or descriptors."""

from __future__ import annotations


def test_nothing_can_be_reached(session, server, listeners):
    """Every way to every listener is refused, the server's own port included, and nothing arrives."""
    targets = listeners.targets
    told = session.exec(
        "prober.connect",
        host="127.0.0.1",
        tcp=targets["tcp"],
        udp=targets["udp"],
        stream_path=targets["stream"],
        datagram_path=targets["datagram"],
        abstract=str(listeners.folder),
        others=[server.port, 22, 53, 80],
    )
    assert "worked" not in told.values(), told
    assert told[f"tcp {server.port}"] == told["tcp"] == "EACCES"
    assert told["datagram pair"] == "EACCES"
    assert listeners.reached() == []


def test_it_is_refused_with_network_declared_but_not_allowed(session):
    """There is no interface but a loopback of its own, or none at all."""
    told = session.exec("prober.read", path="/proc/net/route").get("text", "")
    assert len(told.splitlines()) <= 1


def test_the_machine_shows_no_connections(session, server):
    """What /proc tells of the network is of an empty one: no port of the machine stands in it."""
    shown = session.exec("prober.read", path="/proc/net/tcp").get("text", "")
    assert f":{server.port:04X} " not in shown
    assert len(shown.splitlines()) <= 1
