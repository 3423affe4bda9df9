"""`model_store.model.put`: a multipart upload, because JSON-RPC carries no bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from dataproc import jsonrpc
from dataproc.access.scopes import require
from dataproc.errors import DataprocError, InvalidParams, InvalidRequest, TooLarge
from dataproc.types import JsonObject, Principal
from dataproc.web.auth import principal_of
from dataproc.web.catalogue_api import MODEL_INFO, WRITE

if TYPE_CHECKING:
    from dataproc.composition import System

PATH = "/api/v2/model_store/jsonrpc/upload/model_store.model.put"
MOST_DATA = 2 * 2**20  # bytes of the JSON part
_BODY = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"data": {"type": "string"}, "file": {"type": "string", "format": "binary"}},
            "required": ["data", "file"],
        }
    }
}

router = APIRouter(tags=["model store"])


@router.post(
    PATH,
    summary="Put a model to a model store",
    openapi_extra={"requestBody": {"required": True, "content": _BODY}},
    responses={200: {"content": {"application/json": {"schema": MODEL_INFO}}}},
)
async def put_model(request: Request, principal: Annotated[Principal, Depends(principal_of)]) -> Response:
    """Part `data` is JSON (`model_store_ddc`, `model_kind`, `model_description`, `model_meta`), part `file` is it."""
    require(principal, WRITE)
    system = cast("System", request.app.state.system)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidRequest("a model is uploaded as multipart/form-data, with the parts `data` and `file`")
    form = await _form(request, system.settings.model_limit)
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidParams.field("file", "is missing: a part with a file name", "missing")
        told = await _data(form.get("data"), system.settings.json_depth)
        info = await system.catalogue.models.put(principal.key, told, file.file)
        return Response(jsonrpc.dumps(info), media_type="application/json")
    finally:
        await form.close()


async def _form(request: Request, limit: int) -> Any:
    """The parts. What is larger than the limit is refused before all of it has come."""

    async def bounded() -> AsyncIterator[bytes]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _TooMuch
            yield chunk

    parser = MultiPartParser(
        request.headers, cast("Any", bounded()), max_files=2, max_fields=10, max_part_size=MOST_DATA
    )
    try:
        return await parser.parse()
    except _TooMuch:
        raise TooLarge(f"a model is larger than {limit} bytes (DATAPROC_MODEL_LIMIT)", limit=limit) from None
    except (MultiPartException, KeyError) as error:
        told = error.message if isinstance(error, MultiPartException) else "the boundary is missing"
        raise InvalidRequest(f"the body is no multipart/form-data: {told}") from None


class _TooMuch(Exception):
    """The body is above the limit."""


async def _data(part: object, depth: int) -> JsonObject:
    text = await part.read(MOST_DATA + 1) if isinstance(part, UploadFile) else part
    if text is None:
        raise InvalidParams.field("data", "is missing: a part with JSON", "missing")
    body = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogatepass")
    try:
        told = jsonrpc.loads(body, max_depth=depth)
    except DataprocError as error:
        raise InvalidParams.field("data", f"is no JSON: {error.message}", "json_invalid") from None
    if not isinstance(told, dict):
        raise InvalidParams.field("data", "is to be an object", "dict_type")
    return told
