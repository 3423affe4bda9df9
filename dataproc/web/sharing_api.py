"""`dataset.share` and `model_store.share`: an administrator lets a key read what is another's."""

from __future__ import annotations

from dataproc.access.scopes import ADMIN
from dataproc.catalogue.shares import Kind
from dataproc.errors import Conflict, InvalidParams, NotFound, StorageUnavailable
from dataproc.types import Json, JsonObject
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import Param, Signature, text

_NAME: JsonObject = {"type": "string", "minLength": 1, "maxLength": 200}
_FAILURES = (NotFound, Conflict, StorageUnavailable)


def sharing(kind: Kind, name: str) -> tuple[RpcMethod, RpcMethod]:
    """`<kind>.share` and `<kind>.unshare`; `name` is the param that names it."""
    params = Signature(
        (
            Param(name, text, _NAME, "Its name."),
            Param("owner", text, _NAME, "Whose it is: id or name of a key."),
            Param("key", text, _NAME, "Who may read it: id or name of a key."),
        )
    )

    async def share(exchange: Exchange, owner: str, key: str, **named: str) -> Json:
        keys = [await _key(exchange, "owner", owner), await _key(exchange, "key", key)]
        await exchange.system.catalogue.shares.share(kind, keys[0], named[name], keys[1])
        return True

    async def unshare(exchange: Exchange, owner: str, key: str, **named: str) -> Json:
        keys = [await _key(exchange, "owner", owner), await _key(exchange, "key", key)]
        await exchange.system.catalogue.shares.unshare(kind, keys[0], named[name], keys[1])
        return True

    word = kind.replace("_", " ")
    done: JsonObject = {"const": True}
    about = f"Let a key read another's {word}."
    return (
        RpcMethod(f"{kind}.share", share, about, params, done, needs=ADMIN, errors=_FAILURES),
        RpcMethod(f"{kind}.unshare", unshare, "Take that back.", params, done, needs=ADMIN, errors=_FAILURES),
    )


async def _key(exchange: Exchange, param: str, told: str) -> str:
    """The id of a key by its id or the name of a living one."""
    for key in await exchange.system.keys.list():
        if told == key.id or (told == key.name and key.revoked_at is None):
            return key.id
    raise InvalidParams.field(param, "is neither the id nor the name of a key", "key")
