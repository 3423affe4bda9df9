"""The dataproc API as xData programs import it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataproc_client.rpc import Endpoint, credentials
from dataproc_client.transport import DEFAULT_TIMEOUT
from xdata_dataproc.runs import Run, submit

ANSWER_MARGIN = 30.0  # seconds that a reply may take beyond the run's own time limit


class ApiV2:
    """`dataproc.*` at `endpoint`, the whole address (`http://host:8000/api/v1/dataproc/jsonrpc`).

    With `session_token` calls run in that session; with `apikey` and `secret` alone, each in a fresh one that ends
    with it. `timeout` is seconds without a byte from the server. Threads may share it.
    """

    def __init__(
        self,
        endpoint: str,
        session_token: str | None = None,
        apikey: str | None = None,
        secret: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._endpoint = Endpoint.at(endpoint, credentials(apikey, secret, session_token), timeout)

    def exec(
        self,
        module: str,
        method: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the name is xData's
        output: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        **ours: Any,
    ) -> Any:
        """Run `method` of `module` and give what it returned; True for a method that returns nothing.

        `ours`: `timeout` (seconds that the run may take), `idempotency_key`, `close`, `cancel_on_disconnect`; None
        is as good as left out. Raises ValueError for `close=False` without a session: its token would be lost.
        """
        if ours.get("close") is False and "Xdata-Session-Token" not in self._endpoint.headers:
            raise ValueError("to keep a session, open it: xdata_session.client.ApiV2.open_session")
        return execute(self._endpoint, module, method, input, output, params, ours)

    def submit(
        self,
        module: str,
        method: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - as of exec
        output: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        **ours: Any,
    ) -> Run:
        """As `exec`, without waiting: a `Run`, whose `result()` gives what `exec` would have given."""
        return submit(self._endpoint, call_of(module, method, input, output, params), ours)

    def get_server_version(self) -> str:
        """The server's version."""
        return str(self._endpoint.call("dataproc.get_server_version", {}, repeatable=True))

    def list_modules(self) -> list[dict[str, Any]]:
        """Name, version, description and state of each module that the caller may use."""
        return list(self._endpoint.call("dataproc.list_modules", {}, repeatable=True)["modules"])

    def describe_module(self, module: str) -> dict[str, Any]:
        """One module with the JSON Schemas of its methods' params and results."""
        return dict(self._endpoint.call("dataproc.describe_module", {"module": module}, repeatable=True))

    def close(self) -> None:
        """Close the kept connections (not the session)."""
        self._endpoint.transport.close()


def call_of(
    module: str,
    method: str,
    input: Mapping[str, Any] | None,  # noqa: A002
    output: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `exec` and `submit` are asked."""
    return {"module": module, "method": method, "input": input or {}, "output": output or {}, "params": params or {}}


def execute(
    endpoint: Endpoint,
    module: str,
    method: str,
    input: Mapping[str, Any] | None,  # noqa: A002
    output: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
    ours: Mapping[str, Any],
) -> Any:
    """`dataproc.exec`, waiting for the reply as long as the run may take."""
    given = {name: value for name, value in ours.items() if value is not None}
    call = call_of(module, method, input, output, params)
    limit = given.get("timeout")
    wait = max(endpoint.transport.timeout, limit + ANSWER_MARGIN) if isinstance(limit, int | float) else None
    return endpoint.call("dataproc.exec", {**call, **given}, timeout=wait, repeatable="idempotency_key" in given)
