"""What a request asks for: credentials and parameters, from wherever they were sent."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar, cast
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataproc.access.user_tokens import Holder
from dataproc.errors import InvalidParams, Unauthorized
from dataproc.web.asgi import DisconnectedError, read_body
from dataproc.web.cra.facade import Facade

LARGEST_FORM = 64 * 1024
Query = TypeVar("Query", bound=BaseModel)


class SessionQuery(BaseModel):
    """Parameters that name a session. All parameters may also be sent as headers of the same names."""

    model_config = ConfigDict(populate_by_name=True)

    session: str | None = Field(None, description="A session of the user token; the header `session` is the usual way.")


class CloseQuery(SessionQuery):
    """Parameters of closing."""

    close: bool = Field(False, description="`true` or `Y` closes.")


class DataQuery(SessionQuery):
    """Parameters of `data`."""

    start_row: int = Field(1, ge=1, alias="startRow", description="The first row, counted from 1.")
    num_rows: int | None = Field(None, ge=0, alias="numRows", description="How many rows; default all that follow.")
    sort: str = Field("", description="Up to four columns by letter: `A.D&B.A` is A descending, then B ascending.")
    filter: str = Field("", description="`COL=x&COL2=S*`; `*` stands for any text.")
    refresh: bool = Field(False, description="`Y` runs the method again, `N` serves the rows that were kept.")
    close: bool | None = Field(None, description="Default: a session opened by this call closes, another stays.")
    context: str = Field("*", description="Passed to a method that declares it.")
    server: str = Field("*", description="Passed to a method that declares it.")
    system: str = Field("*", description="Passed to a method that declares it.")
    scope: str = Field("*", description="Passed to a method that declares it.")
    period: str | None = Field(None, description="Passed to a method that declares it.")


class ViewQuery(DataQuery):
    """Parameters of the older calls."""

    product: str = Field(description="The product's name.")
    view: str = Field(description="The view's name.")


def facade_of(request: Request) -> Facade:
    """The facade of the application."""
    return cast(Facade, request.app.state.cra)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form or of a JSON object; none where there is no body. Raises InvalidParams, TooLarge."""
    try:
        body = await read_body(request.receive, _length(request), LARGEST_FORM)
    except DisconnectedError:
        return {}
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith("multipart/"):
        raise InvalidParams.field("body", "is multipart; send application/x-www-form-urlencoded or application/json")
    try:
        if "json" in kind or body.lstrip()[:1] == b"{":
            found = json.loads(body or b"{}")
            if type(found) is not dict:
                raise ValueError
        else:
            found = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
    except (ValueError, RecursionError):
        raise InvalidParams.field("body", "must be a form or a JSON object") from None
    return {str(name): value for name, value in found.items() if type(value) is str}


def _length(request: Request) -> bytes | None:
    length = request.headers.get("content-length")
    return None if length is None else length.encode()


async def bearer(request: Request, facade: Annotated[Facade, Depends(facade_of)]) -> Holder:
    """Who sent the user token of `Authorization: Bearer`. Raises Unauthorized."""
    return await facade.holder(request.scope, _bearer(request))


async def by_form(request: Request, facade: Facade) -> tuple[Holder, dict[str, str]]:
    """Who sent the form, by its field `userToken` or the usual header, and its other fields. Raises Unauthorized."""
    fields = await form_of(request)
    text = fields.pop("userToken", None) or _bearer(request)
    return await facade.holder(request.scope, text), fields


def read_query(kind: type[Query], request: Request, fields: dict[str, str]) -> Query:
    """The parameters of an older call, in its address or its form. Raises InvalidParams."""
    try:
        return kind.model_validate({**fields, **request.query_params})
    except ValidationError as error:
        faults = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        raise InvalidParams("; ".join(faults[:5])) from None


def _bearer(request: Request) -> str:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthorized("no user token: log on, and send it as `Authorization: Bearer`")
    return text.strip()


def further(request: Request, known: type[BaseModel], fields: dict[str, str] | None = None) -> dict[str, str]:
    """Parameters that are none of the facade's own: the method's, and what follows a `filter` not encoded."""
    own = {field.alias or name for name, field in known.model_fields.items()}
    return {name: value for name, value in {**(fields or {}), **request.query_params}.items() if name not in own}


HeldBy = Annotated[Holder, Depends(bearer)]
InFacade = Annotated[Facade, Depends(facade_of)]
