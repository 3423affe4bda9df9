"""The routes of the facade."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from dataproc.access.user_tokens import Holder
from dataproc.errors import InvalidParams, NotFound, Unauthorized
from dataproc.web.asgi import REQUEST_ID_OF_REPLY
from dataproc.web.cra.addresses import BASE
from dataproc.web.cra.asked import (
    CloseQuery,
    DataQuery,
    HeldBy,
    InFacade,
    SessionQuery,
    ViewQuery,
    by_form,
    form_of,
    further,
    read_query,
)
from dataproc.web.cra.columns import ColumnDefinition, declared, definitions
from dataproc.web.cra.data import Page, asked_view, page
from dataproc.web.cra.facade import Facade
from dataproc.web.cra.replies import FacadeRoute, Refusal
from dataproc.web.cra.services import Service, the_service

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "A parameter is wrong"},
    401: {"model": Refusal, "description": "No user token, or one that is over"},
    404: {"model": Refusal, "description": "Nothing of that name, or no such session"},
    429: {"model": Refusal, "description": "A bound is reached"},
}
router = APIRouter(tags=["cra"], route_class=FacadeRoute, responses=_REFUSALS)

_ONE = BASE + "/{service}"
_VIEW = _ONE + "/products/{product}/views/{view}"


class LoggedOn(BaseModel):
    """A user token."""

    userToken: str  # noqa: N815 - the public name


class Done(BaseModel):
    """Nothing went wrong. timeout: idle minutes of the user token and its sessions."""

    rc: int = 0
    timeout: int | None = None
    session: str | None = None


class Product(BaseModel):
    """A module with views."""

    productName: str  # noqa: N815
    description: str


class ViewListed(BaseModel):
    """A method that returns a table."""

    viewName: str  # noqa: N815
    description: str


class ViewDefinition(BaseModel):
    """A view and its columns."""

    productName: str  # noqa: N815
    viewName: str  # noqa: N815
    description: str
    columns: list[ColumnDefinition]


class Systems(BaseModel):
    """The systems that a product has data of: this server."""

    rc: int = 0
    context: str
    rowCount: int = 1  # noqa: N815
    totalRowCount: int = 1  # noqa: N815
    startRow: int = 1  # noqa: N815
    history: bool = False
    systems: list[dict[str, str]]


This = Annotated[str, Path(description="`DATAPROC_CRA_SERVICE`; the segment may be left out.")]


def _is_this(facade: Facade, service: str) -> None:
    if service != facade.system.settings.cra_service:
        raise NotFound(f"there is no service {service[:100]!r}")


@router.get(BASE, summary="The services that there are")
@router.post(BASE, summary="The services that there are", include_in_schema=False)
async def services(request: Request, facade: InFacade) -> list[Service]:
    """This server; needs no token."""
    return [the_service(facade.system.settings, request)]


_LOGON_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                    "required": ["username", "password"],
                }
            }
            for kind in ("application/x-www-form-urlencoded", "application/json")
        },
    }
}


@router.post(_ONE + "/Logon", summary="Log on with an API key and its secret", openapi_extra=_LOGON_BODY)
async def log_on(request: Request, facade: InFacade, service: This) -> LoggedOn:
    """A user token for `username`, the API key, and `password`, its secret."""
    _is_this(facade, service)
    fields = await form_of(request)
    if not fields:
        raise Unauthorized("client certificates are not offered here: send username and password")
    if "username" not in fields or "password" not in fields:
        raise Unauthorized("send username, the API key, and password, its secret")
    return LoggedOn(userToken=await facade.log_on(request.scope, fields["username"], fields["password"]))


@router.post(_ONE + "/Logoff", summary="Log off")
async def log_off(request: Request, facade: InFacade, service: This) -> Done:
    """Ends the user token of the form field `userToken`, and every session of it."""
    _is_this(facade, service)
    holder, _ = await by_form(request, facade)
    await facade.log_off(request.scope, holder)
    return Done()


@router.get(_ONE + "/keepalive", summary="Keep a user token, or a session and with it the token")
async def keep_alive(
    request: Request, facade: InFacade, service: This, holder: HeldBy, query: Annotated[SessionQuery, Query()]
) -> Done:
    """The idle clocks start anew."""
    _is_this(facade, service)
    if query.session is not None:
        await facade.keep_alive(holder, query.session)
    return Done(timeout=facade.system.settings.cra_timeout_minutes, session=query.session)


@router.get(_ONE, summary="Close a session, or without one all of the user token")
async def close(
    request: Request, facade: InFacade, service: This, holder: HeldBy, query: Annotated[CloseQuery, Query()]
) -> Done:
    """With `close=true`."""
    _is_this(facade, service)
    return await _close(request, facade, holder, query)


@router.post(_ONE, summary="The same, with the user token also in a form")
async def close_by_form(request: Request, facade: InFacade, service: This) -> Done:
    """With `close=true`, in the address or the form."""
    _is_this(facade, service)
    holder, fields = await by_form(request, facade)
    return await _close(request, facade, holder, read_query(CloseQuery, request, fields))


@router.delete(_ONE, summary="The same; `close` need not be said")
async def delete(
    request: Request, facade: InFacade, service: This, holder: HeldBy, query: Annotated[SessionQuery, Query()]
) -> Done:
    """Closes a session, or without one all of the user token."""
    _is_this(facade, service)
    return await _close(request, facade, holder, CloseQuery(session=query.session, close=True))


async def _close(request: Request, facade: Facade, holder: Holder, query: CloseQuery) -> Done:
    if not query.close:
        raise InvalidParams.field("close", "send close=true; nothing else is done at this address")
    if query.session is None:
        await facade.close_all(request.scope, holder)
    else:
        await facade.find(holder, query.session)
        await facade.close(request.scope, holder, query.session)
    return Done(session=query.session)


@router.get(_ONE + "/products", summary="The modules that have views")
async def products(facade: InFacade, service: This, holder: HeldBy) -> list[Product]:
    """Those of which the caller may see something."""
    _is_this(facade, service)
    found = await facade.products(holder)
    return [Product(productName=entry.name, description=entry.description) for entry in found]


@router.get(_ONE + "/products/{product}/views", summary="The views of a module")
async def views(facade: InFacade, service: This, holder: HeldBy, product: str) -> list[ViewListed]:
    """Those that the caller may see."""
    _is_this(facade, service)
    entry = await facade.product(holder, product)
    return [ViewListed(viewName=each.name, description=each.description) for each in facade.views(holder, entry)]


@router.get(_VIEW + "/definition", summary="A view's columns")
async def definition(
    request: Request, facade: InFacade, service: This, holder: HeldBy, product: str, view: str,
    query: Annotated[DataQuery, Query()],
) -> ViewDefinition:  # fmt: skip
    """From what the method declares; where it does not say, from its rows, for which it may be run."""
    _is_this(facade, service)
    entry, method = await facade.view(holder, product, view)
    found = declared(method.result)
    if not found:
        asked = asked_view(entry, method, query, further(request, DataQuery))
        try:
            async with facade.session(request.scope, holder, query.session, None) as caller:
                kept = await facade.rows.of(caller, asked.view, refresh=False, request_id=_request_id(request))
            found = [(column.name, column.kind) for column in kept.table.columns]
        except InvalidParams:
            found = []  # it needs params of its own: its columns are those of the data that they give
    return ViewDefinition(
        productName=entry.name, viewName=method.name, description=method.description, columns=definitions(found)
    )


@router.get(_VIEW + "/data", summary="A view's rows", responses={200: {"model": Page}}, response_class=JSONResponse)
async def data(
    request: Request, facade: InFacade, service: This, holder: HeldBy, product: str, view: str,
    query: Annotated[DataQuery, Query()],
) -> Response:  # fmt: skip
    """A page, in some order, of the rows that pass a filter. Further parameters are the method's own."""
    _is_this(facade, service)
    return await _data(request, facade, holder, product, view, query, further(request, DataQuery))


_FORM = {
    "requestBody": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "properties": {"userToken": {"type": "string"}}}
            }
        }
    }
}


@router.post(_ONE + "/getView", summary="The older call for `data`", response_model=Page, openapi_extra=_FORM)
@router.post(_ONE + "/getData", summary="The older call for `data`", response_model=Page, openapi_extra=_FORM)
async def older(request: Request, facade: InFacade, service: This) -> Response:
    """As `data`, with the same parameters, in the address or the form."""
    _is_this(facade, service)
    holder, fields = await by_form(request, facade)
    query = read_query(ViewQuery, request, fields)
    more = further(request, ViewQuery, fields)
    return await _data(request, facade, holder, query.product, query.view, query, more)


async def _data(
    request: Request, facade: Facade, holder: Holder, product: str, view: str, query: DataQuery, more: dict[str, str]
) -> Response:
    entry, method = await facade.view(holder, product, view)
    asked = asked_view(entry, method, query, more)
    async with facade.session(request.scope, holder, query.session, query.close) as caller:
        kept = await facade.rows.of(caller, asked.view, refresh=query.refresh, request_id=_request_id(request))
        return await page(kept, asked, query, str(caller.session))


@router.get(_ONE + "/products/{product}/systems", summary="The systems that a product has data of")
async def systems(
    request: Request, facade: InFacade, service: This, holder: HeldBy, product: str, context: str = "*"
) -> Systems:
    """This server."""
    _is_this(facade, service)
    await facade.product(holder, product)
    told = the_service(facade.system.settings, request)
    one = {"system": service, "server": told.HOSTCN, "context": context, "status": told.STATUS}
    return Systems(context=context, systems=[one])


def _request_id(request: Request) -> str:
    return str(request.scope.get(REQUEST_ID_OF_REPLY, ""))
