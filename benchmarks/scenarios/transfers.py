"""A large file, down and up: beside Starlette's own means, and beside nginx alone."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.harness import Finding, Measured, Rounds, Skipped, by_turns, compared
from benchmarks.peers import FILES
from benchmarks.processes import end, wait_until

NAME = "transfers"
OURS = "/api/v1/dataproc/files/"
MIB = 2**20
HOST = "127.0.0.1"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def run(bench: Bench) -> Measured:
    """MiB/s each way as ratios, and what the server's memory grows by."""
    settings = {"ACCEL_PREFIX": "/_files", "FORWARDED_ALLOW_IPS": HOST}
    server = bench.another(NAME, **settings)
    peer = bench.peers(("files",))["files"]
    session = {"Xdata-Session-Token": server.open().headers["Xdata-Session-Token"]}
    source = bench.folder / "transfer.bin"
    with source.open("wb") as file:
        for _ in range(bench.options.megabytes):
            file.write(os.urandom(MIB))
    with source.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()
    checked = {**session, "Content-Digest": f"sha-256=:{digest}:"}
    up = {
        "ours": partial(upload, server.port, f"{OURS}big", session, source),
        "ours, digest": partial(upload, server.port, f"{OURS}big", checked, source),
        "bare": partial(upload, peer.port, f"{FILES}big", {}, source),
    }
    down = {
        "ours": partial(download, server.port, f"{OURS}big", session),
        "FileResponse": partial(download, peer.port, f"{FILES}big", {}),
    }
    for transfer in (*up.values(), *down.values()):
        transfer()
    before = resident(server.pid)
    sent = by_turns(up, bench.options.rounds)
    got = by_turns(down, bench.options.rounds)
    grown = (peak(server.pid) - before) / MIB
    return [
        _row("download, over FileResponse", got, ("ours", "FileResponse"), 1.5),
        _row("upload, over a bare route that streams to disk", sent, ("ours", "bare"), 0.9),
        _row("upload with its digest, over the bare route", sent, ("ours, digest", "bare"), 0.7),
        Finding(NAME, "server memory grown by transfers", max(grown, 0.0), "at most", 64, "MiB"),
        *_behind_nginx(bench, server.port, session),
    ]


def _row(what: str, rounds: Rounds, pair: tuple[str, str], target: float) -> Finding:
    return compared(NAME, what, rounds, pair, "at least", target, lambda rate: f"{rate:.0f} MiB/s")


def _behind_nginx(bench: Bench, port: int, session: Mapping[str, str]) -> Measured:
    if NGINX is None:
        return [Skipped(NAME, "nginx is not installed (package `nginx`)")]
    with nginx(bench.folder, port) as front:
        contestants = {
            "ours": partial(download, front, f"{OURS}big", session),
            "nginx": partial(download, front, "/plain/transfer.bin", {}),
        }
        for each in contestants.values():
            each()
        rounds = by_turns(contestants, bench.options.rounds)
    return [_row("download behind nginx, over nginx alone", rounds, ("ours", "nginx"), 0.9)]


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[int]:
    """nginx before the server, with X-Accel-Redirect, and with a folder of its own; its port."""
    with socket.create_server((HOST, 0)) as free:
        front = int(free.getsockname()[1])
    home = folder / "nginx"
    home.mkdir()
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    storage = folder / NAME / "storage"
    (home / "nginx.conf").write_text(f"""
        {"user root;" if os.getuid() == 0 else ""}
        daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
        events {{}}
        http {{
            access_log off; sendfile on; {temporary}
            server {{
                listen {HOST}:{front};
                location / {{ proxy_pass http://{HOST}:{port}; proxy_set_header X-Forwarded-For $remote_addr; }}
                location /_files/ {{ internal; alias {storage}/; disable_symlinks on from={storage}; }}
                location /plain/ {{ alias {folder}/; disable_symlinks on from={folder}; }}
            }}
        }}""")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([str(NGINX), "-p", home, "-c", home / "nginx.conf", "-e", "stderr"], stderr=log)  # noqa: S603
    try:
        wait_until(lambda: _listens(front), 20, f"nginx does not listen: see {home}/log")
        yield front
    finally:
        end(process)


def _listens(port: int) -> bool | None:
    with socket.socket() as client:
        return True if client.connect_ex((HOST, port)) == 0 else None


def upload(port: int, path: str, headers: Mapping[str, str], source: Path) -> float:
    """MiB/s of a PUT, from the first byte to the answer."""
    size = source.stat().st_size
    connection = http.client.HTTPConnection(HOST, port, timeout=300)
    begun = time.perf_counter()
    connection.putrequest("PUT", path)
    for name, value in {**headers, "Content-Length": str(size)}.items():
        connection.putheader(name, value)
    connection.endheaders()
    with source.open("rb") as file:
        connection.sock.sendfile(file)
    answer = connection.getresponse()
    taken = time.perf_counter() - begun
    if answer.status >= 300:
        raise RuntimeError(f"{path}: {answer.status} {answer.read()[:300]!r}")
    connection.close()
    return size / MIB / taken


def download(port: int, path: str, headers: Mapping[str, str]) -> float:
    """MiB/s of a GET, from the question to the last byte."""
    connection = http.client.HTTPConnection(HOST, port, timeout=300)
    buffer = bytearray(MIB)
    begun = time.perf_counter()
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    size = 0
    while count := answer.readinto(buffer):
        size += count
    taken = time.perf_counter() - begun
    if answer.status != 200 or size != int(answer.headers["Content-Length"]):
        raise RuntimeError(f"{path}: {answer.status}, {size} bytes")
    connection.close()
    return size / MIB / taken


def resident(pid: int) -> int:
    """Bytes of memory in use now; from now on, `peak` counts."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most bytes of memory since `resident` was asked."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
