"""This server as one of the services that a gateway tells of."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel
from starlette.requests import Request

from dataproc.settings import Settings


class Service(BaseModel):
    """One service, all in strings."""

    HOSTIP: str
    STATUS: str = "ACTIVE"
    PORT: str
    WEBSERVICEName: str
    TLS: str
    TYPE: str = "DATAPROC"
    HOSTCN: str


def the_service(settings: Settings, request: Request) -> Service:
    """At the public address where there is one; else at the one that the request came to."""
    url = _address(settings, request)
    host, tls = url.hostname or "localhost", url.scheme == "https"
    port = url.port or (443 if tls else 80)
    return Service(
        HOSTIP=_number(host, settings, request),
        PORT=str(port),
        WEBSERVICEName=settings.cra_service,
        TLS="Y" if tls else "N",
        HOSTCN=host,
    )


def _address(settings: Settings, request: Request) -> SplitResult:
    try:
        url = urlsplit(settings.public_url or str(request.base_url))
        _ = url.port
    except ValueError:
        return urlsplit("http://localhost")
    return url


def _number(host: str, settings: Settings, request: Request) -> str:
    """The address as a number, where that is known without asking anybody. Behind a proxy the socket's is nobody's."""
    server = request.scope.get("server") or ("",)
    for known in (host,) if settings.public_url else (host, server[0]):
        try:
            return str(ip_address(known))
        except ValueError:
            continue
    return host
