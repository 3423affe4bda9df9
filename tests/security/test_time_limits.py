"""Promise: a run ends when its time is over, whatever it does against that."""

from __future__ import annotations

import threading
import time

import pytest


@pytest.mark.parametrize("method", ["forever", "deaf", "stubborn", "spin", "stopped"])
def test_every_kind_of_stubbornness_ends(session, bystander, method):
    """Waiting, ignoring SIGTERM, catching everything, spinning in C, being stopped: one error, in time."""
    began = time.monotonic()
    error = session.error(f"sleeper.{method}")
    assert error.code == -32007
    assert error.data["timeout"] == 1
    assert time.monotonic() - began < 8
    assert session.exec("sleeper.nap", seconds=0) == 0


def test_a_polite_method_is_allowed_to_clean_up(session):
    """SIGTERM comes first: a `finally` block runs."""
    assert session.error("sleeper.polite").code == -32007
    assert (session.files / "cleaned").read_text() == "yes"


def test_others_are_served_meanwhile(session, bystander, until):
    """While one session spins in C code, another's calls go on as always."""
    spinning = threading.Thread(target=session.error, args=("sleeper.spin",))
    spinning.start()
    served = 0
    while spinning.is_alive():
        assert bystander.exec("chatterbox.echo", value="x") == "x"
        served += 1
    spinning.join()
    assert served > 10
