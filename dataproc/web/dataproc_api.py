"""`dataproc.*` and `module.exec`: run a method of a module, and say which there are."""

from __future__ import annotations

from typing import Any

from dataproc.access.scopes import EXEC, may_exec, require_exec
from dataproc.database.idempotency import Claim
from dataproc.errors import (
    Conflict,
    ExecCancelled,
    ExecCrashed,
    ExecFailed,
    ExecTimeout,
    Forbidden,
    Interrupted,
    MethodNotFound,
    ModuleNotFound,
    Overloaded,
    QuotaExceeded,
    TooLarge,
)
from dataproc.executor import Call
from dataproc.ledger import result_of
from dataproc.runs import Completed, error_of
from dataproc.settings import Settings
from dataproc.types import Json, JsonObject, Principal
from dataproc.web import VERSION
from dataproc.web.exchange import BEGUN, Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import Param, Signature, boolean, text
from dataproc.web.runs_api import call_params, claimed, run_methods

_NAME: JsonObject = {"type": "string", "minLength": 1}
_EXEC_ERRORS = (
    ModuleNotFound,
    MethodNotFound,
    ExecFailed,
    ExecCrashed,
    ExecTimeout,
    ExecCancelled,
    QuotaExceeded,
    Overloaded,
    Interrupted,
    TooLarge,
)


def dataproc_methods(settings: Settings) -> tuple[RpcMethod, ...]:
    """The table of `/api/v1/dataproc/jsonrpc`."""
    module: JsonObject = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "aliases": {"type": "array", "items": {"type": "string"}},
            "version": {"type": "string"},
            "description": {"type": "string"},
            "state": {"enum": ["ready", "broken"]},
            "methods": {"type": "array"},
            "error": {"type": "string"},
        },
    }
    listed: JsonObject = {"type": "object", "properties": {"modules": {"type": "array", "items": module}}}
    return (
        RpcMethod(
            "dataproc.get_server_version",
            get_server_version,
            "The server's version.",
            Signature(()),
            {"type": "string"},
        ),
        _exec("dataproc.exec", settings),
        *run_methods(settings),
        RpcMethod(
            "dataproc.list_modules",
            list_modules,
            "The modules that the caller may use.",
            Signature(()),
            listed,
            needs=EXEC,
        ),
        RpcMethod(
            "dataproc.describe_module",
            describe_module,
            "One module: its methods, with JSON Schemas of params and results.",
            Signature((Param("module", text, _NAME, "Its name."),)),
            module,
            needs=EXEC,
            errors=(ModuleNotFound,),
        ),
    )


def module_methods(settings: Settings) -> tuple[RpcMethod, ...]:
    """The table of `/api/v2/module/jsonrpc`."""
    return (_exec("module.exec", settings),)


def _exec(name: str, settings: Settings) -> RpcMethod:
    disconnect: JsonObject = {"type": "boolean"}
    params = (
        *call_params(settings),
        Param("cancel_on_disconnect", boolean, disconnect, "End the run when the caller hangs up.", False, True),
    )
    return RpcMethod(
        name,
        exec_method,
        "Run a method of a module in the caller's session, or in a fresh one that ends with the call.",
        Signature(params),
        {},
        needs=EXEC,
        errors=(*_EXEC_ERRORS, Conflict),
    )


async def get_server_version(exchange: Exchange) -> Json:
    """The version of this distribution."""
    return VERSION


async def exec_method(
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
    cancel_on_disconnect: bool,
) -> Json:
    """What the method returned; whatever else became of the run is raised, with its id."""
    system, principal = exchange.system, exchange.principal
    canonical = (await system.registry.resolve(module)).name  # before a scope is looked at
    require_exec(principal, canonical, method)
    if close:
        exchange.close()
    claim = claimed(exchange, idempotency_key, (canonical, method, input, output, params))
    if claim is not None and (known := await system.ledger.replay(claim)) is not None:
        return result_of(known)
    session = await exchange.session()
    if close is False:
        await exchange.keep()
    begun = BEGUN.get()
    call = Call(principal, session, canonical, method, params, input, output, timeout, exchange.request_id, begun=begun)
    if claim is not None:
        return await _once(exchange, call, claim, cancel_on_disconnect)
    work = system.executor.execute(call)
    if cancel_on_disconnect:
        ended = await exchange.unless_gone(work, lambda: system.executor.cancel(call.run_id))
    else:
        ended = await work
    if isinstance(ended.outcome, Completed):
        return ended.outcome.result
    error = error_of(ended.outcome)
    assert error is not None
    error.data["run_id"] = ended.run
    raise error


async def _once(exchange: Exchange, call: Call, claim: Claim, cancel_on_disconnect: bool) -> Json:
    work = exchange.system.ledger.run_once(call, claim)
    if cancel_on_disconnect:
        return result_of(await exchange.unless_gone(work, lambda: exchange.system.executor.cancel(call.run_id)))
    return result_of(await work)


async def list_modules(exchange: Exchange) -> Json:
    """Names, versions, states of the modules of which the caller may run something."""
    rows = [_open_to(exchange.principal, row) for row in await exchange.system.registry.list()]
    return {"modules": [row for row in rows if row is not None]}


async def describe_module(exchange: Exchange, module: str) -> Json:
    """One module's row with its methods in full, those that the caller may run."""
    row = await exchange.system.registry.describe_module(module)
    shown = _open_to(exchange.principal, row)
    if shown is None:
        scope = f"{EXEC}:{row['name']}"
        raise Forbidden(f"the credentials lack the scope {scope}", scope=scope)
    return shown


def _open_to(principal: Principal, row: dict[str, Any]) -> dict[str, Any] | None:
    """A module's row without the methods that the caller may not run; None where that leaves nothing."""
    name = row["name"]
    if principal.scopes & {EXEC, f"{EXEC}:{name}"}:
        return row
    methods = [
        method
        for method in row["methods"]
        if may_exec(principal, name, method if isinstance(method, str) else method["name"])
    ]
    return {**row, "methods": methods} if methods else None
