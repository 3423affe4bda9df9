"""A real S3 server over HTTP, for tests: moto's, in a process of its own, on a free port."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import s3fs

DEADLINE = 60.0


@dataclass(frozen=True)
class S3:
    """A server that answers at `url`; it takes any credentials."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def env(self) -> dict[str, str]:
        """What makes clients use it."""
        return {
            "AWS_ACCESS_KEY_ID": "an-id",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-store",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    def fs(self) -> s3fs.S3FileSystem:
        """A view of it, for looking behind our back."""
        return s3fs.S3FileSystem(
            key="an-id",
            secret="a-secret-of-the-store",
            endpoint_url=self.url,
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def bucket(self) -> str:
        """A new one."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=DEADLINE).close()
        return name

    def settings(self) -> dict[str, object]:
        """Settings of ours that use it."""
        return {
            "s3_endpoint": self.url,
            "s3_region": "us-east-1",
            "s3_access_key_id": "an-id",
            "s3_secret_access_key": "a-secret-of-the-store",
        }


@contextmanager
def serving(port: int = 0) -> Iterator[S3]:
    """The server, up."""
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    )
    try:
        _wait(port, process)
        yield S3(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert process.poll() is None, "the S3 server ended"
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        select.select([], [], [], 0.05)
    raise AssertionError("the S3 server does not answer")
