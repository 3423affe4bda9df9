"""`dataproc serve`: the server's life, from the socket to the last process gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shlex
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import structlog
import uvicorn
import uvloop

from dataproc import headers
from dataproc.cli.output import line
from dataproc.cli.problems import CommandError, Exit
from dataproc.composition import System, build
from dataproc.settings import Settings, unknown_variables
from dataproc.telemetry import configure_logging
from dataproc.web.app import create_app
from dataproc.web.server import PeerProtocol

LAST_REPLIES = 2.0  # seconds for what callers are told of runs that were just ended
KEEP_ALIVE = 75  # seconds; more than proxies keep their idle connections, so that they never meet one just closed
log = structlog.get_logger(__name__)


Ready = Callable[[System, str], None]


def run(settings: Settings, *, first_key: bool, ready: Ready | None = None) -> None:
    """Serve until a signal says stop. ready: told the address once it listens, in place of our own announcement."""
    configure_logging(settings.log_format, settings.log_level, confined=settings.sandbox != "off")
    if unknown := unknown_variables(os.environ):
        log.warning("settings.unknown", names=unknown)
    _try_certificate(settings)
    with contextlib.closing(_bind(settings)) as listener:
        try:
            uvloop.run(_serve(settings, listener, first_key, ready))
        finally:
            if settings.uds is not None:
                settings.uds.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn, told by us when to stop, and telling when it is ready."""

    def __init__(self, config: uvicorn.Config, system: System, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._system = system
        self._ready = ready
        self._ends: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn's own would raise the signal again at the end, before our processes are stopped

    def stop(self) -> None:
        """Take nothing new, and let runs and transfers end for the close wait; told again, do not wait."""
        again, self.should_exit = self.should_exit, True
        wait = 0.0 if again else self._system.settings.close_wait
        log.info("server.stopping", wait=wait)
        self._system.workspaces.hurry(wait)
        self._ends.append(asyncio.create_task(self._end(wait)))

    async def _end(self, wait: float) -> None:
        """Runs are ended while the connections are still served, so that their callers are told; then all the rest."""
        late = asyncio.get_running_loop().time() + wait
        await self._system.executor.stop(wait)
        requests = self.server_state.tasks
        if requests:
            left = late - asyncio.get_running_loop().time()
            await asyncio.wait(list(requests), timeout=max(LAST_REPLIES, left))
        if requests:
            log.warning("server.cut_off", requests=len(requests))
        for request in list(requests):
            request.cancel()


async def _serve(settings: Settings, listener: socket.socket, first_key: bool, ready: Ready | None) -> None:
    starting = asyncio.current_task()
    assert starting is not None
    _on_signals(starting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        system = await build(_reachable(settings, listener))
        try:
            credentials = await _first_key(system) if first_key else None
            await _refuse_to_be_open(system)
            await system.start()
            announce = partial(_announce, settings, listener, credentials, first_key)
            if ready is not None:
                announce = partial(ready, system, _address(settings, listener))
            server = _Server(_config(settings, create_app(system)), system, announce)
            _on_signals(server.stop)
            _settle_memory()
            await server.serve([listener])
        finally:
            await system.stop()


def _settle_memory() -> None:
    """What is loaded by now stays: the collector need not walk it, which takes a tenth of a second, again and again.

    What requests leave behind is few objects in cycles; looking for them less often costs a little memory.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _on_signals(act: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, act)


def _config(settings: Settings, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=PeerProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is trusted as a gateway is judged by the socket's own address
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.close_wait + settings.run_grace) + 2,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _try_certificate(settings: Settings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as wrong:  # ssl.SSLError is one
        raise CommandError(
            f"cannot serve https with DATAPROC_TLS_CERT={settings.tls_cert} and DATAPROC_TLS_KEY={settings.tls_key}: "
            f"{wrong.strerror or wrong}"
        ) from None


def _bind(settings: Settings) -> socket.socket:
    """The socket to listen on; it listens only once the server is ready."""
    where = str(settings.uds) if settings.uds else f"{settings.host}:{settings.port}"
    try:
        if settings.uds is not None:
            return _bind_unix(settings)
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as refused:
        remedy = "DATAPROC_UDS" if settings.uds else "DATAPROC_HOST or DATAPROC_PORT (0 takes a free port)"
        raise CommandError(f"cannot listen on {where}: {refused.strerror or refused}: set {remedy}") from None


def _bind_unix(settings: Settings) -> socket.socket:
    path = str(settings.uds)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        raise CommandError(f"another server listens on {path}: stop it, or name another by DATAPROC_UDS")
    assert settings.uds is not None
    if settings.uds.is_socket():
        settings.uds.unlink()  # left behind by a server that was killed
    listener.bind(path)
    settings.uds.chmod(0o666)  # as to a loopback port: who may connect says nothing of who may call
    return listener


async def _has_key(system: System) -> bool:
    now = system.clock.now()
    return any(
        key.revoked_at is None and (key.expires_at is None or key.expires_at > now) for key in await system.keys.list()
    )


async def _first_key(system: System) -> tuple[str, str] | None:
    if await _has_key(system):
        return None
    made = await system.keys.create(f"first-{system.clock.now():%Y-%m-%d-%H%M%S}")
    return made.apikey, made.secret


async def _refuse_to_be_open(system: System) -> None:
    settings = system.settings
    if settings.loopback or await _has_key(system):
        return
    raise CommandError(
        f"refused to listen on {settings.host}, beyond loopback, while there is no key: make one with "
        "`dataproc key create --name me` (same settings), or listen on 127.0.0.1",
        Exit.USAGE,
    )


def _address(settings: Settings, listener: socket.socket) -> str:
    if settings.uds is not None:
        return f"unix:{settings.uds}"
    host, port = listener.getsockname()[:2]
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _reachable(settings: Settings, listener: socket.socket) -> Settings:
    """With the address at which the other servers of a cluster reach this one, as far as that is clear."""
    if settings.node_url or settings.uds is not None or listener.getsockname()[0] in ("0.0.0.0", "::"):  # noqa: S104
        return settings
    return settings.model_copy(update={"node_url": _address(settings, listener)})


def _announce(
    settings: Settings, listener: socket.socket, credentials: tuple[str, str] | None, first_key: bool
) -> None:
    address = _address(settings, listener)
    line(f"listening on {address}")
    if not first_key:
        return
    if credentials:
        line("\nThe first key; its secret is not kept anywhere, note it now:")
        line(f"  export DATAPROC_APIKEY={credentials[0]}\n  export DATAPROC_SECRET={credentials[1]}")
    else:
        line("\nThere are keys already (`dataproc key list`; a new one: `dataproc key create --name me`).")
    apikey, secret = map(shlex.quote, credentials) if credentials else ('"$DATAPROC_APIKEY"', '"$DATAPROC_SECRET"')
    line(f"\nTry it:\n  {_curl(settings, address, apikey, secret)}\n")


def _curl(settings: Settings, address: str, apikey: str, secret: str) -> str:
    near = address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    where = f"--unix-socket {shlex.quote(str(settings.uds))} http://localhost" if settings.uds else near
    call = '{"jsonrpc":"2.0","id":1,"method":"dataproc.exec","params":{"module":"test-module","method":"session-test"}}'
    insecure = "-k " if settings.tls_cert else ""
    return (
        f"curl -s {insecure}{where}/api/v1/dataproc/jsonrpc -H 'Content-Type: application/json'"
        f" -H {headers.API_KEY}:{apikey} -H {headers.SECRET}:{secret} -d '{call}'"
    )
