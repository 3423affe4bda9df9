"""JSON-RPC 2.0 as pure functions: bytes to requests, outcomes to bytes. Nothing here knows HTTP.

Stricter than most: a body that two parsers could read in two ways (a name given twice, NaN, a lone surrogate) is
refused, because what is checked here is what a worker parses again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from dataproc.errors import DataprocError, InvalidRequest, ParseError
from dataproc.types import Json, JsonObject

RequestId = str | int | float | None
Params = list[Any] | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `params` is a list by position, a dict by name; `notification` calls get no answer."""

    method: str
    params: Params
    id: RequestId = None
    notification: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """What stands where a request should be; `id` is its id where it has a usable one."""

    error: InvalidRequest
    id: RequestId = None


@dataclass(frozen=True, slots=True)
class Batch:
    """An array of calls, in the order sent; never empty."""

    items: tuple[Request | Rejected, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A result that is JSON already, in UTF-8: it is spliced into the answer unread."""

    json: bytes


def parse(body: bytes | bytearray, *, max_depth: int = 100, max_batch: int = 1000) -> Request | Rejected | Batch:
    """What a body asks for.

    Raises ParseError for what is no JSON, InvalidRequest for an array that is empty or longer than `max_batch`.
    """
    value = loads(body, max_depth=max_depth)
    if not isinstance(value, list):
        return _request(value)
    if not value:
        raise InvalidRequest("an empty array is no batch: a batch holds at least one request")
    if len(value) > max_batch:
        raise InvalidRequest(
            f"a batch of {len(value)} calls is above the limit of {max_batch} (DATAPROC_BATCH_LIMIT)",
            limit=max_batch,
            used=len(value),
        )
    return Batch(tuple(map(_request, value)))


def loads(body: bytes | bytearray, *, max_depth: int = 100) -> Any:
    """The JSON value of a body; ParseError says what is wrong with it, and where."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ParseError(f"the body is not UTF-8: {error.reason} at byte {error.start}", position=error.start) from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _no_json(text, error) from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError:
        raise ParseError("the body holds an integer with more digits than this server reads") from None
    if text.count("[") + text.count("{") > max_depth and _deeper(value, max_depth):
        raise _too_deep(max_depth)
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(value)
    return value


def answer(call_id: RequestId, result: Json | Encoded) -> bytes:
    """The response object of a call that succeeded. Raises ValueError or TypeError for what is no JSON."""
    encoded = result.json if type(result) is Encoded else dumps(result)
    return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (encoded, _id(call_id))


def refusal(call_id: RequestId, error: DataprocError, **data: Json) -> bytes:
    """The response object of a call that failed; `data` goes on top of the error's own members."""
    return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (dumps(error_object(error, **data)), _id(call_id))


def error_object(error: DataprocError, **data: Json) -> JsonObject:
    """`code`, `message` and `data` of an error, the same on every route."""
    return {"code": error.code, "message": error.message, "data": {**error.members(), **data}}


def join(answers: Iterable[bytes]) -> bytes:
    """The response of a batch."""
    return b"[%b]" % b",".join(answers)


def dumps(value: Any) -> bytes:
    """Compact UTF-8; a lone surrogate (a file name in another encoding, say) becomes `?`."""
    return _ENCODER.encode(value).encode("utf-8", "replace")


def _id(call_id: RequestId) -> bytes:
    return b"%d" % call_id if type(call_id) is int else dumps(call_id)


def _request(value: Any) -> Request | Rejected:
    if type(value) is not dict:
        return Rejected(InvalidRequest(f"a request is an object, not {_kind(value)}"))
    call_id = value.get("id")
    if call_id is not None and (type(call_id) is bool or not isinstance(call_id, (str, int, float))):
        return Rejected(InvalidRequest(f"`id` is a string, a number or null, not {_kind(call_id)}"))
    method, params = value.get("method"), value.get("params", {})
    if value.get("jsonrpc") == "2.0" and type(method) is str and type(params) in (dict, list):
        return Request(method, params, call_id, "id" not in value)
    return Rejected(InvalidRequest("; ".join(_faults(value))), call_id)


def _faults(value: dict[str, Any]) -> Iterator[str]:
    if value.get("jsonrpc") != "2.0":
        yield '`jsonrpc` is to be "2.0"'
    if "method" not in value:
        yield "`method` is missing"
    elif not isinstance(value["method"], str):
        yield f"`method` is a string, not {_kind(value['method'])}"
    if not isinstance(value.get("params", {}), (dict, list)):
        yield f"`params` is an array or an object, not {_kind(value['params'])}"


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ParseError(f"the name {_shortened(twice)} stands twice in one object")
    return found


def _float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ParseError(f"the number {_shortened(literal)} is too large for a double")
    return value


def _constant(literal: str) -> NoReturn:
    raise ParseError(f"{literal} is no JSON; send null, or a string")


def _shortened(text: str, length: int = 40) -> str:
    return json.dumps(text if len(text) <= length else text[:length] + "…", ensure_ascii=False)


def _no_json(text: str, error: json.JSONDecodeError) -> ParseError:
    if not text.strip(" \t\r\n"):
        return ParseError("the body is empty")
    if text.startswith("\ufeff"):
        return ParseError("the body begins with a byte order mark; send UTF-8 without it", position=0)
    what = "something follows the value" if error.msg == "Extra data" else error.msg.removesuffix(" at")
    return ParseError(
        f"the body is no JSON: {what} at line {error.lineno} column {error.colno}",
        line=error.lineno,
        column=error.colno,
    )


def _too_deep(limit: int) -> ParseError:
    return ParseError(f"the body is nested deeper than {limit} levels (DATAPROC_JSON_DEPTH)", limit=limit)


def _deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _members(outer) if type(inner) is dict or type(inner) is list]
        if not level:
            return False
    return True


def _members(value: Any) -> Iterable[Any]:
    return cast(Iterable[Any], value.values()) if type(value) is dict else value if type(value) is list else ()


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise ParseError("the body holds half of a surrogate pair (an escape from \\ud800 to \\udfff alone)") from None


_KINDS: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
