"""Every error a caller can meet, as data: code, name, whether a retry helps, and what stands in `error.data`.

The codes and names are the wire contract (docs/errors.md is generated from this file). Nothing here knows HTTP or
JSON-RPC; the edge maps `code` and `http_status` to a reply. A message never holds a server path, a secret or a
server frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class DataprocError(Exception):
    """The root: something that a caller is told.

    `data` holds the members that the code's row of the contract names; `name`, `retryable`, `request_id` and
    `run_id` are added at the edge.
    """

    code: ClassVar[int] = -32603
    name: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500  # on file and event routes, and where a whole request is refused
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, /, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = data

    def members(self) -> dict[str, Any]:
        """What stands in `error.data`, without what only the edge knows."""
        return {**self.data, "name": self.name, "retryable": self.retryable}  # codes are shared: the name decides


class ParseError(DataprocError):
    """The body is no JSON; the message says in which way."""

    code, name, http_status = -32700, "parse_error", 400


class InvalidRequest(DataprocError):
    """The body is JSON, but no JSON-RPC request."""

    code, name, http_status = -32600, "invalid_request", 400


class UnknownRpcMethod(DataprocError):
    """The endpoint has no such JSON-RPC method."""

    code, name, http_status = -32601, "unknown_rpc_method", 404


class InvalidParams(DataprocError):
    """One or more params are wrong; `data.errors` has one entry a field: `loc`, `msg`, `type`."""

    code, name, http_status = -32602, "invalid_params", 400

    @classmethod
    def field(cls, loc: str | list[str | int], msg: str, type: str = "value_error") -> InvalidParams:  # noqa: A002 - the wire's word
        """The error of a single field."""
        where = [loc] if isinstance(loc, str) else loc
        return cls(f"{'.'.join(str(part) for part in where)}: {msg}", errors=[{"loc": where, "msg": msg, "type": type}])


class InternalError(DataprocError):
    """Our fault. The log has the cause under the request id."""

    code, name, http_status = -32603, "internal_error", 500


class Unauthorized(DataprocError):
    """No credentials, wrong ones, an unknown token; `data.reason` where the token itself expired or was revoked."""

    code, name, http_status = -32001, "unauthorized", 401


class Forbidden(DataprocError):
    """The credentials lack a scope, named in `data.scope`."""

    code, name, http_status = -32002, "forbidden", 403


class SessionEnded(DataprocError):
    """The token's session is over or closing: `data.reason`, `data.ended_at`."""

    code, name, http_status = -32003, "session_ended", 401
    session: str | None = None  # its id where it is known, for the header of the reply


class ModuleNotFound(DataprocError):
    """No such module, or a broken one (`data.reason` says why)."""

    code, name, http_status = -32004, "module_not_found", 404


class MethodNotFound(DataprocError):
    """The module has no such method."""

    code, name, http_status = -32004, "method_not_found", 404


class ExecFailed(DataprocError):
    """The method raised, or returned no JSON: `data.type`, `data.message`, `data.traceback`, `data.exit_code`."""

    code, name = -32005, "exec_failed"


class ExecCrashed(DataprocError):
    """The worker process died under the run: `data.signal` or `data.exit_code`."""

    code, name, retryable = -32006, "exec_crashed", True


class ExecTimeout(DataprocError):
    """The run was ended by its time limit, `data.timeout` seconds."""

    code, name = -32007, "exec_timeout"


class ExecCancelled(DataprocError):
    """The run was cancelled."""

    code, name = -32008, "exec_cancelled"


class QuotaExceeded(DataprocError):
    """A quota is used up: `data.quota`, `data.limit`, `data.used`."""

    code, name, http_status = -32009, "quota_exceeded", 507


class Overloaded(DataprocError):
    """A bound is reached: `data.limit`, and `data.retry_after` in seconds."""

    code, name, http_status, retryable = -32010, "overloaded", 503, True


class Conflict(DataprocError):
    """The request contradicts an earlier one, or the session's lease was lost to another node."""

    code, name, http_status = -32011, "conflict", 409


class PreconditionFailed(Conflict):
    """The file is not what `If-Match` or `If-None-Match` says: a conflict with a status of its own."""

    http_status = 412


class StorageUnavailable(DataprocError):
    """The store or the database does not answer."""

    code, name, http_status, retryable = -32012, "storage_unavailable", 503, True


class NotFound(DataprocError):
    """A run, file, session or token of the caller that does not exist."""

    code, name, http_status = -32013, "not_found", 404


class Interrupted(DataprocError):
    """The server stopped under the run, or under the request."""

    code, name, http_status, retryable = -32014, "interrupted", 503, True


class TooLarge(DataprocError):
    """A request, result or file is above its limit: `data.limit`, `data.size` where known."""

    code, name, http_status = -32015, "too_large", 413


def raised_by_name(name: str, message: str, data: Mapping[str, Any]) -> DataprocError:
    """The error of that contract name, for records that are read back."""
    for kind in DataprocError.__subclasses__():
        if kind.name == name:
            return kind(message, **data)
    return InternalError(message, **data)
