"""Every error that a call can end in. All are a `DataprocError`, and each says whether calling again can help.

Two families: what the server answered (one class a name of the wire contract), and `TransportError`, where no
proper answer came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class DataprocError(Exception):
    """The root. Also raised itself, for an error that this version of the client has no class for.

    code: JSON-RPC error code; 0 where no answer came. name: the contract's name of the error.
    data: the answer's `error.data`; what it holds is told class by class. retryable: calling again can help.
    """

    code: int = 0
    name: str = "unknown"
    retryable: bool = False

    def __init__(self, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = dict(data or {})

    @property
    def request_id(self) -> str | None:
        """The request's id, to look up in the server's log."""
        return self.data.get("request_id")

    @property
    def run_id(self) -> str | None:
        """The run's id, where one had begun."""
        return self.data.get("run_id")

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class ParseError(DataprocError):
    """The server could not read the request as JSON."""

    code, name = -32700, "parse_error"


class InvalidRequest(DataprocError):
    """The request is no JSON-RPC request."""

    code, name = -32600, "invalid_request"


class UnknownRpcMethod(DataprocError):
    """The endpoint has no such JSON-RPC method."""

    code, name = -32601, "unknown_rpc_method"


class InvalidParams(DataprocError):
    """Params are wrong: `data["errors"]` has `loc`, `msg` and `type` for each field."""

    code, name = -32602, "invalid_params"


class InternalError(DataprocError):
    """The server's fault; its log tells the cause under `request_id`."""

    code, name = -32603, "internal_error"


class Unauthorized(DataprocError):
    """No credentials, wrong ones, or an unknown token."""

    code, name = -32001, "unauthorized"


class Forbidden(DataprocError):
    """The credentials lack the scope `data["scope"]`."""

    code, name = -32002, "forbidden"


class SessionEnded(DataprocError):
    """The session is over (`data["reason"]`, `data["ended_at"]`): open a new one, and delete a saved token."""

    code, name = -32003, "session_ended"


class ModuleNotFound(DataprocError):
    """No such module (`data["name"]`), or a broken one (`data["reason"]`)."""

    code, name = -32004, "module_not_found"


class MethodNotFound(DataprocError):
    """The module has no such method."""

    code, name = -32004, "method_not_found"


class ExecFailed(DataprocError):
    """The method raised: `data` holds `type`, `message`, `traceback`, or the `exit_code` of a script."""

    code, name = -32005, "exec_failed"


class ExecCrashed(DataprocError):
    """The method's process died: `data["signal"]` or `data["exit_code"]`."""

    code, name, retryable = -32006, "exec_crashed", True


class ExecTimeout(DataprocError):
    """The run was ended by its time limit of `data["timeout"]` seconds."""

    code, name = -32007, "exec_timeout"


class ExecCancelled(DataprocError):
    """The run was cancelled."""

    code, name = -32008, "exec_cancelled"


class QuotaExceeded(DataprocError):
    """A quota is used up: `data["quota"]`, `data["limit"]`, `data["used"]`."""

    code, name = -32009, "quota_exceeded"


class Overloaded(DataprocError):
    """A bound of the server is reached; call again in `retry_after` seconds."""

    code, name, retryable = -32010, "overloaded", True

    @property
    def retry_after(self) -> float:
        """Seconds that the server asks to wait; 1 if it named none."""
        return float(self.data.get("retry_after", 1))


class Conflict(DataprocError):
    """The request contradicts an earlier one, or what is there."""

    code, name = -32011, "conflict"


class StorageUnavailable(DataprocError):
    """The server's store or database does not answer."""

    code, name, retryable = -32012, "storage_unavailable", True


class NotFound(DataprocError):
    """No such run, file, session or token of this caller."""

    code, name = -32013, "not_found"


class Interrupted(DataprocError):
    """The server stopped under the run."""

    code, name, retryable = -32014, "interrupted", True


class TooLarge(DataprocError):
    """Request, result or file is above a limit: `data["limit"]`."""

    code, name = -32015, "too_large"


class TransportError(DataprocError):
    """No proper answer came. `retryable` is true where calling again cannot do the work twice."""

    name = "transport_error"

    def __init__(self, message: str, data: Mapping[str, Any] | None = None, *, retryable: bool = False) -> None:
        super().__init__(message, data)
        self.retryable = retryable


class ConnectionFailed(TransportError, ConnectionError):
    """The server was never reached, so nothing has been done."""

    name = "connection_failed"


class ConnectionLost(TransportError, ConnectionError):
    """The connection broke after the request was sent: whether it was done is unknown."""

    name = "connection_lost"


class Timeout(TransportError, TimeoutError):
    """No answer within the client's timeout: whether it was done is unknown."""

    name = "timeout"


class UnexpectedAnswer(TransportError):
    """Something else answered, a proxy say: `data["status"]`, and the beginning of its text in `data["text"]`."""

    name = "unexpected_answer"


ANSWERED: tuple[type[DataprocError], ...] = tuple(
    kind for kind in DataprocError.__subclasses__() if kind is not TransportError
)


def from_answer(error: Mapping[str, Any]) -> DataprocError:
    """The exception for an `error` member: by its name, else by its code, else the root with both kept."""
    data = error.get("data")
    data = data if isinstance(data, dict) else {}
    code, name = error.get("code"), data.get("name")
    named = [kind for kind in ANSWERED if kind.name == name]
    kind = next(iter(named or [kind for kind in ANSWERED if kind.code == code]), DataprocError)
    made = kind(str(error.get("message", "")), data)
    if isinstance(code, int):
        made.code = code
    made.name = str(name or kind.name)
    made.retryable = bool(data.get("retryable", kind.retryable))
    return made
