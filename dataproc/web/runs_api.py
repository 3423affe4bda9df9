"""`dataproc.*` about runs: submit one, look at it, wait for it, cancel it, read what it said."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Any

from dataproc.access.scopes import ADMIN, EXEC, require_exec, require_some_exec
from dataproc.database.idempotency import MOST, Claim
from dataproc.database.runs import Wanted
from dataproc.errors import Conflict, Forbidden, InvalidParams, MethodNotFound, ModuleNotFound, NotFound, Overloaded
from dataproc.executor import Call
from dataproc.ledger import Seen, claim_of
from dataproc.registry.names import folded
from dataproc.runs import Run, RunStatus
from dataproc.settings import Settings
from dataproc.types import Json, JsonObject, Principal, rfc3339, wire_id
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import (
    Param,
    ParamError,
    Signature,
    any_text,
    anything,
    boolean,
    object_,
    or_null,
    seconds,
    text,
    whole,
)

POLL_AFTER = 1.0  # seconds that a caller may wait before it asks for a fresh run
MOST_WAIT, USUAL_WAIT = 3600.0, 30.0  # seconds of a long poll
PAGE, MOST_PAGE = 100, 1000
LOG_PIECE, MOST_LOG_PIECE = 2**20, 2**24
NO_CHANGES: JsonObject = {"created": [], "modified": [], "deleted": [], "shared": False}

_NAME: JsonObject = {"type": "string", "minLength": 1}
_OBJECT: JsonObject = {"type": "object"}
_RUN_ID = Param("run_id", any_text, {"type": "string"}, "The run's id.")
_ALL = Param("all", boolean, {"type": "boolean"}, "Runs of all keys; takes a key with `admin`.", False, True)
_KEY_NAME = re.compile(rf"[\x20-\x7e]{{1,{MOST}}}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def call_params(settings: Settings) -> tuple[Param, ...]:
    """What `exec` and `submit` take both."""
    most = settings.max_run_timeout
    limit: JsonObject = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": most}
    key: JsonObject = {"type": ["string", "null"], "minLength": 1, "maxLength": MOST}
    return (
        Param("module", text, _NAME, "The module's name."),
        Param("method", text, _NAME, "The name of its method."),
        Param("input", object_, _OBJECT, "Declared inputs, by name.", {}),
        Param("output", object_, _OBJECT, "Declared outputs, by name.", {}),
        Param("params", object_, _OBJECT, "The method's own params, by name.", {}),
        Param("token", anything, {}, "Accepted and ignored: the header decides.", None),
        Param("timeout", or_null(seconds(most)), limit, "Time limit of the run in seconds.", None, True),
        Param("close", or_null(boolean), {"type": ["boolean", "null"]}, "End the session after the call.", None, True),
        Param("idempotency_key", or_null(_key_name), key, "The same call under it runs once.", None, True),
    )


def run_methods(settings: Settings) -> tuple[RpcMethod, ...]:
    """The part of the table that is about runs."""
    submitted: JsonObject = {
        "type": "object",
        "properties": {"run_id": {"type": "string"}, "status": _STATUS, "poll_after": {"type": "number"}},
        "required": ["run_id", "status", "poll_after"],
    }
    wait: JsonObject = {"type": ["number", "null"], "minimum": 0, "maximum": MOST_WAIT}
    offset: JsonObject = {"type": "integer", "minimum": 0}
    piece: JsonObject = {"type": "integer", "minimum": 1, "maximum": MOST_LOG_PIECE}
    page: JsonObject = {"type": "integer", "minimum": 1, "maximum": MOST_PAGE}
    maybe: JsonObject = {"type": ["string", "null"]}
    state: JsonObject = {"enum": [*(status.value for status in RunStatus), None]}
    refusals = (ModuleNotFound, MethodNotFound, Overloaded, Conflict)
    listed: JsonObject = {"type": "object", "properties": {"runs": {"type": "array", "items": _RUN}, "cursor": maybe}}
    part: JsonObject = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "offset": {"type": "integer"}, "ended": {"type": "boolean"}},
    }
    return (
        _about("submit", submit, "Have a method run, and be told its id at once.", call_params(settings), submitted,
               refusals),
        _about("get_run", get_run, "A run as it stands.", (_RUN_ID, _ALL), _RUN),
        _about("wait_run", wait_run, "A run once it has ended, or when the time is up.",
               (_RUN_ID, Param("timeout", or_null(_wait), wait, "Seconds to wait.", USUAL_WAIT), _ALL), _RUN),
        _about("list_runs", list_runs, "The caller's runs, newest first.", (
            Param("status", or_null(_status), state, "Only those in this state.", None),
            Param("module", or_null(text), maybe, "Only those of this module.", None),
            Param("cursor", or_null(_cursor), maybe, "Where the page before ended.", None),
            Param("limit", whole(1, MOST_PAGE), page, "At most so many.", PAGE),
            _ALL,
        ), listed),
        _about("cancel_run", cancel_run, "End a run. One that has ended stays as it is.", (_RUN_ID, _ALL),
               {"const": True}, (NotFound,)),
        _about("get_log", get_log, "What a run printed, from a byte on.", (
            _RUN_ID,
            Param("offset", whole(0, 2**62), offset, "Byte to begin at.", 0),
            Param("limit", whole(1, MOST_LOG_PIECE), piece, "Bytes at most.", LOG_PIECE),
            _ALL,
        ), part),
    )  # fmt: skip


def _about(
    name: str, handler: Any, summary: str, params: tuple[Param, ...], result: JsonObject, errors: Any = (NotFound,)
) -> RpcMethod:
    admin = _ALL in params
    return RpcMethod(f"dataproc.{name}", handler, summary, Signature(params), result, EXEC, errors, admin=admin)


def claimed(
    exchange: Exchange, named: str | None, call: tuple[str, str, JsonObject, JsonObject, JsonObject]
) -> Claim | None:
    """The idempotency key of a call, by header or param; None where it has none."""
    header = exchange.idempotency_key
    if header is None and named is None:
        return None
    if header is not None and named is not None and header != named:
        raise InvalidParams.field("idempotency_key", "is another than the header `Idempotency-Key`")
    if header is not None and not _KEY_NAME.fullmatch(header):
        raise InvalidParams.field("Idempotency-Key", f"is to be 1 to {MOST} printable ASCII characters")
    return claim_of(exchange.principal, named or header or "", call)


def _reach(exchange: Exchange, every_key: bool) -> Principal | None:
    """Whose runs are meant: the caller's, or with `all` everybody's."""
    principal = exchange.principal
    if not every_key:
        require_some_exec(principal)
        return principal
    if principal.via != "key" or ADMIN not in principal.scopes:
        raise Forbidden("runs of all keys take a key with the scope admin", scope=ADMIN)
    return None


async def submit(
    exchange: Exchange,
    module: str,
    method: str,
    input: JsonObject,  # noqa: A002 - the contract's word
    output: JsonObject,
    params: JsonObject,
    token: object,
    timeout: float | None,  # noqa: ASYNC109 - the run's limit, which the engine enforces
    close: bool | None,
    idempotency_key: str | None,
) -> Json:
    """The id of a run that is on record."""
    system, principal = exchange.system, exchange.principal
    canonical = (await system.registry.resolve(module)).name
    require_exec(principal, canonical, method)
    claim = claimed(exchange, idempotency_key, (canonical, method, input, output, params))
    if claim is not None and (known := await system.ledger.known(claim)) is not None:
        return _submitted(known)
    session = await exchange.session()
    closes = close is True or (close is None and principal.session is None)
    call = Call(principal, session, canonical, method, params, input, output, timeout, exchange.request_id)
    await system.executor.plan(call)  # what is refused leaves no session behind
    await exchange.keep()
    try:
        run = await system.ledger.submit(call, claim, closes=closes)
    except Exception:
        exchange.let_go()
        raise
    if run.session != session:
        exchange.let_go()  # somebody else was quicker under the same key
    return _submitted(run)


def _submitted(run: Run) -> JsonObject:
    return {"run_id": run.id, "status": run.status.value, "poll_after": POLL_AFTER}


async def get_run(exchange: Exchange, run_id: str, all: bool) -> Json:  # noqa: A002
    """One run, in full."""
    return run_view(await exchange.system.ledger.get(_reach(exchange, all), run_id))


async def wait_run(exchange: Exchange, run_id: str, timeout: float | None, all: bool) -> Json:  # noqa: A002, ASYNC109
    """The same, later."""
    wait = USUAL_WAIT if timeout is None else timeout
    return run_view(await exchange.system.ledger.wait(_reach(exchange, all), run_id, wait))


async def list_runs(
    exchange: Exchange,
    status: RunStatus | None,
    module: str | None,
    cursor: str | None,
    limit: int,
    all: bool,  # noqa: A002 - the contract's word
) -> Json:
    """A page of runs, each in short."""
    if module is not None:
        module = await _canonical(exchange, module)
    wanted = Wanted(states=() if status is None else (status,), module=module, before=cursor)
    found, following = await exchange.system.ledger.page(_reach(exchange, all), wanted, limit)
    return {"runs": [short_view(seen) for seen in found], "cursor": following}


async def _canonical(exchange: Exchange, module: str) -> str:
    """The name under which a module's runs are on record; also of one that went away, or is broken."""
    try:
        return (await exchange.system.registry.resolve(module)).name
    except ModuleNotFound:
        return folded(module)


async def cancel_run(exchange: Exchange, run_id: str, all: bool) -> Json:  # noqa: A002
    """True, whether or not there was anything left to end."""
    await exchange.system.ledger.cancel(_reach(exchange, all), run_id)
    return True


async def get_log(exchange: Exchange, run_id: str, offset: int, limit: int, all: bool) -> Json:  # noqa: A002
    """A piece of the log; `offset` says where the next begins."""
    found, to, ended = await exchange.system.ledger.log(_reach(exchange, all), run_id, offset, limit)
    return {"text": found, "offset": to, "ended": ended}


def short_view(seen: Seen) -> JsonObject:
    """What a list shows of a run."""
    run = seen.run
    return {
        "run_id": run.id,
        "status": run.status.value,
        "session_id": wire_id(run.session),
        "module": run.module,
        "module_version": run.module_version,
        "method": run.method,
        "created_at": rfc3339(run.created_at),
        "started_at": _when(run.started_at),
        "ended_at": _when(run.ended_at),
        "queue_wait": _between(run.created_at, run.started_at),
        "duration": _between(run.started_at, run.ended_at),
        "progress": run.progress,
        "place": seen.place,
        "error": run.told_error,
        "request_id": run.request_id or None,
        "attempt": run.attempt,
    }


def run_view(seen: Seen) -> JsonObject:
    """What a caller is shown of one run."""
    run, usage = seen.run, seen.run.usage
    return {
        **short_view(seen),
        "params": run.params,
        "input": run.input,
        "output": run.output,
        "arguments_sha256": _arguments(run),
        "result": run.result,
        "messages": list(run.messages),
        "changes": NO_CHANGES if run.changes is None else run.changes,
        "usage": {
            "cpu_time": None if usage is None else usage.cpu_time,
            "peak_memory": None if usage is None else usage.peak_memory,
            "bytes_read": None if usage is None else usage.bytes_read,
            "bytes_written": None if usage is None else usage.bytes_written,
            "log_bytes": run.log_bytes,
        },
        "poll_after": None if run.status.ended else POLL_AFTER,
    }


def _arguments(run: Run) -> str:
    written = json.dumps([run.params, run.input, run.output], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _between(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def _status(value: Any) -> RunStatus:
    try:
        return RunStatus(value)
    except ValueError:
        raise ParamError(f"is to be one of {', '.join(RunStatus)}", "enum") from None


def _cursor(value: Any) -> str:
    if not _ID.fullmatch(any_text(value)):
        raise ParamError("is none that this method gave", "value_error")
    return str(value)


def _wait(value: Any) -> float:
    if type(value) not in (int, float):
        raise ParamError("is to be a number of seconds", "float_type")
    if not 0 <= value <= MOST_WAIT:
        raise ParamError(f"is to be from 0 to {MOST_WAIT:g}", "less_than_equal")
    return float(value)


def _key_name(value: Any) -> str:
    found = text(value)
    if len(found) > MOST:
        raise ParamError(f"is to be at most {MOST} characters long", "string_too_long")
    if "\0" in found:
        raise ParamError("is to hold no NUL", "value_error")
    return found


_STATUS: JsonObject = {"enum": [status.value for status in RunStatus]}
_RUN: JsonObject = {
    "type": "object",
    "properties": {
        "run_id": {"type": "string"},
        "status": _STATUS,
        "session_id": {"type": "string"},
        "module": {"type": "string"},
        "method": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
        "started_at": {"type": ["string", "null"], "format": "date-time"},
        "ended_at": {"type": ["string", "null"], "format": "date-time"},
        "result": {},
        "error": {"type": ["object", "null"]},
        "progress": {"type": ["object", "null"]},
        "place": {"type": ["integer", "null"]},
        "changes": {"type": "object"},
        "usage": {"type": "object"},
        "messages": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["run_id", "status", "session_id", "module", "method", "created_at"],
}
