"""The session API as xData programs import it."""

from __future__ import annotations

from typing import Any

from dataproc_client.rpc import Endpoint, credentials
from dataproc_client.transport import DEFAULT_TIMEOUT


class ApiV2:
    """`session.*` at `endpoint`, the whole address (`http://host:8000/api/v1/session/jsonrpc`).

    `timeout` is seconds without a byte from the server. Threads may share it.
    """

    def __init__(
        self,
        endpoint: str,
        apikey: str | None = None,
        secret: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        session_token: str | None = None,
    ) -> None:
        self._endpoint = Endpoint.at(endpoint, credentials(apikey, secret, session_token), timeout)

    def open_session(self, expires_in: int | None = None, **ours: Any) -> dict[str, Any]:
        """Open a session: `{"access_token", "expires_in", "session_id", …}`. `expires_in` is seconds, None = 30 days.

        `ours`: the contract's further members (`name`, `labels`, `idle_timeout`, `scopes`).
        """
        asked = {} if expires_in is None else {"expires_in": expires_in}
        return dict(self._endpoint.call("session.open_session", {**asked, **ours}))

    def verify_session_token(self, token: str) -> dict[str, Any]:
        """`{"active": bool}`: whether `token` is a live one of this caller."""
        return dict(self._endpoint.call("session.verify_session_token", {"token": token}, repeatable=True))

    def close_session(self, token: str) -> bool:
        """End the session of `token` and delete its directory. True, also when it had ended before."""
        return bool(self._endpoint.call("session.close_session", {"token": token}, repeatable=True))

    def get_session(self, token: str | None = None, session_id: str | None = None) -> dict[str, Any]:
        """What the server knows of a session: id, state, times, usage. Without arguments, of the caller's own."""
        given = {"token": token, "session_id": session_id}
        asked = {name: value for name, value in given.items() if value is not None}
        return dict(self._endpoint.call("session.get_session", asked, repeatable=True))

    def close(self) -> None:
        """Close the kept connections (not the session)."""
        self._endpoint.transport.close()
