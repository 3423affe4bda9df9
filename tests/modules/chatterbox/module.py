"""Says too much, in the wrong places, or nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys

from dataproc import Module

module = Module("chatterbox", version="1.0.0", description="Talks.")


@module.method
def flood(size: int, stream: str = "stdout") -> int:
    """Write so many bytes to a stream."""
    block = b"x" * 65536
    number = getattr(sys, stream).fileno()
    written = 0
    while written < size:
        written += os.write(number, block)
    return written


@module.method
def haunt(seconds: float) -> str:
    """Leave a thread that writes for so long after the run."""
    import threading
    import time

    end = time.monotonic() + seconds

    def write() -> None:
        while time.monotonic() < end:
            os.write(1, b"x" * 65536)

    for _ in range(4):
        threading.Thread(target=write, daemon=True).start()
    return "haunted"


@module.method
def child_flood(size: int) -> int:
    """The same by a child process."""
    return subprocess.run(["/usr/bin/head", "-c", str(size), "/dev/zero"], check=True).returncode


@module.method
def say(text: str) -> None:
    """Print a line."""
    print(text)


@module.method
def garbage(text: str, repeat: int = 1) -> str:
    """Write the same on every descriptor there is."""
    data = bytes.fromhex(text) * repeat
    for number in range(64):
        try:
            os.set_blocking(number, False)
            os.write(number, data)
        except OSError:
            continue
    return "written"


@module.method
def close_all() -> str:
    """Close every descriptor there is."""
    os.closerange(0, 1024)
    return "closed"


@module.method
def half(text: str) -> str:
    """Write on every descriptor, then die."""
    garbage(text)
    os._exit(0)


@module.method
def echo(value: str) -> str:
    """What a well-behaved method does."""
    return value
