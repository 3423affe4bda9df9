"""`dataset.*` and `model_store.*`: the catalogue of the caller's key."""

from __future__ import annotations

from dataproc.errors import Conflict, NotFound, StorageUnavailable, TooLarge
from dataproc.jsonrpc import Encoded
from dataproc.types import Json, JsonObject
from dataproc.web.exchange import Exchange
from dataproc.web.methods import RpcMethod
from dataproc.web.params import Param, ParamError, Signature, anything, or_null, text, whole
from dataproc.web.sharing_api import sharing

READ, WRITE = "catalogue.read", "catalogue.write"
MOST = 2**53
_NAME: JsonObject = {"type": "string", "minLength": 1, "maxLength": 200}
_CONDITION: JsonObject = {"type": ["object", "null"], "minProperties": 1, "maxProperties": 1}
_COUNT: JsonObject = {"type": "integer", "minimum": 0}
_MOMENT: JsonObject = {
    "type": "object",
    "properties": {"_type": {"const": "datetime"}, "val": {"type": "string", "format": "date-time"}},
}
_COLUMN: JsonObject = {
    "type": "object",
    "properties": {
        "column_name": {"type": "string"},
        "data_type": {"type": "string"},
        "nullable": {"type": "boolean", "default": False},
        "attnum": {"type": "integer"},
    },
    "required": ["column_name", "data_type"],
}
_DATASET_INFO: JsonObject = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "session_id": {"type": ["string", "null"]},
        **{name: {"type": "string"} for name in ("usename", "ddc_type", "short_form", "long_form", "realname")},
        "created_at": _MOMENT,
        "committed_at": {"anyOf": [_MOMENT, {"type": "null"}]},
        "prepared_activity_id": {"type": ["integer", "null"]},
    },
}
_CITATION_INFO: JsonObject = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        **{name: {"type": "string"} for name in ("short_form", "long_form", "dataset_name", "dataset_realname")},
        "transaction_time": _MOMENT,
        "created_at": _MOMENT,
    },
}
MODEL_INFO: JsonObject = {
    "type": "object",
    "properties": {
        "start_datetime": _MOMENT,
        "end_datetime": _MOMENT,
        "location": {"type": "array", "items": {"type": "number"}},
        "tenant_id": {"type": "string"},
        "model_id": {"type": "string", "format": "uuid"},
        "model_kind": {"type": "string"},
        "model_description": {"type": "string"},
        "model_meta": {"type": "object"},
        "model_state": {"type": "integer"},
        "model_hash": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "model_size": {"type": "integer"},
        "round": {"type": "integer"},
        "hop_count": {"type": "integer"},
    },
}
_TRUE: JsonObject = {"const": True}
_ORDER = Param(
    "order", anything, {"type": ["string", "array", "null"]}, 'A column, `"-id"` for descending; or several.', None
)
_OFFSET = Param("offset", whole(0, MOST), _COUNT, "How many to leave out first.", 0)
_FAILURES = (NotFound, Conflict, StorageUnavailable)


def _named(name: str, about: str) -> Param:
    return Param(name, text, _NAME, about)


def _on_conflict(value: object) -> object:
    if value not in ("error", "update", "nothing"):
        raise ParamError("is to be `error`, `update` or `nothing`", "enum")
    return value


def dataset_methods() -> tuple[RpcMethod, ...]:
    """The table of `/api/v2/dataset/jsonrpc`."""
    name = _named("dataset_name", "The data set's name, with or without `ddc:`.")
    columns: JsonObject = {"type": "array", "items": _COLUMN, "minItems": 1}
    names: JsonObject = {"type": ["array", "null"], "items": {"type": "string"}}
    limit: JsonObject = {"type": ["integer", "null"], "minimum": 0}
    return (
        RpcMethod(
            "dataset.create",
            create,
            "Make an empty data set.",
            Signature(
                (
                    name,
                    Param("columns", anything, columns, "Its columns, in order."),
                    Param("key_columns", anything, names, "Columns that tell records apart.", None),
                )
            ),
            _DATASET_INFO,
            needs=WRITE,
            errors=_FAILURES,
        ),
        RpcMethod(
            "dataset.delete", delete, "Delete a data set.", Signature((name,)), _TRUE, needs=WRITE, errors=_FAILURES
        ),
        RpcMethod(
            "dataset.list",
            list_datasets,
            "The data sets that the caller's key may read.",
            Signature(()),
            {"type": "array", "items": _DATASET_INFO},
            needs=READ,
        ),
        RpcMethod(
            "dataset.get_columns",
            get_columns,
            "The columns of a data set.",
            Signature((name,)),
            {"type": "array", "items": _COLUMN},
            needs=READ,
            errors=_FAILURES,
        ),
        RpcMethod(
            "dataset.citation.create",
            create_citation,
            "Give the state that a data set has now a label, under which it can be read from then on.",
            Signature((_named("citation_label", "The label."), _named("source", "The data set's name."))),
            _CITATION_INFO,
            needs=WRITE,
            errors=_FAILURES,
        ),
        RpcMethod(
            "dataset.citation.delete",
            delete_citation,
            "Delete a citation.",
            Signature((_named("citation_label", "The label."),)),
            _TRUE,
            needs=WRITE,
            errors=_FAILURES,
        ),
        RpcMethod(
            "dataset.record.put",
            put_records,
            "Put records to a data set, all or none.",
            Signature(
                (
                    name,
                    Param("records", anything, {"type": "array", "items": {"type": "array"}}, "Values by column."),
                    Param(
                        "on_conflict",
                        _on_conflict,
                        {"enum": ["error", "update", "nothing"]},
                        "What to do where a record of the same key columns is there.",
                        "error",
                    ),
                )
            ),
            _COUNT,
            needs=WRITE,
            errors=_FAILURES,
        ),
        RpcMethod(
            "dataset.record.get",
            get_records,
            "The records under a citation; a data set's own name is a citation of what it is now.",
            Signature(
                (
                    _named("citation_label", "A citation, or a data set's name."),
                    Param("columns", anything, names, "Names of the columns wanted; null for all.", None),
                    Param("condition", anything, _CONDITION, 'Which, like `{"<>": ["id", 2]}`.', None),
                    _OFFSET,
                    Param("limit", or_null(whole(0, MOST)), limit, "How many at most.", None),
                    _ORDER,
                )
            ),
            {"type": "array", "items": {"type": "object"}},
            needs=READ,
            errors=(*_FAILURES, TooLarge),
        ),
        RpcMethod(
            "dataset.record.delete",
            delete_records,
            "Delete the records that match.",
            Signature((name, Param("condition", anything, {"type": "object"}, 'Which, like `{"=": ["id", 2]}`.'))),
            _COUNT,
            needs=WRITE,
            errors=_FAILURES,
        ),
        *sharing("dataset", "dataset_name"),
    )


def model_store_methods() -> tuple[RpcMethod, ...]:
    """The table of `/api/v2/model_store/jsonrpc`."""
    limit = Param("limit", or_null(whole(0, 1000)), {"type": ["integer", "null"]}, "How many at most.", None)
    return (
        RpcMethod(
            "model_store.model.get_info",
            get_model_info,
            "The models of a store that match.",
            Signature(
                (
                    _named("model_store_ddc", "The store's name, with or without `ddc:`."),
                    Param("conds", anything, _CONDITION, 'Which, like `{"=": ["model_state", 10]}`.', None),
                    _OFFSET,
                    limit,
                    _ORDER,
                )
            ),
            {"type": "array", "items": MODEL_INFO},
            needs=READ,
            errors=_FAILURES,
        ),
        *sharing("model_store", "model_store_ddc"),
    )


async def create(exchange: Exchange, dataset_name: str, columns: Json, key_columns: Json) -> Json:
    """Its dataset_info."""
    caller = exchange.principal
    return await exchange.system.catalogue.datasets.create(
        caller.key, dataset_name, columns, key_columns, caller.session
    )


async def delete(exchange: Exchange, dataset_name: str) -> Json:
    """true."""
    await exchange.system.catalogue.datasets.delete(exchange.principal.key, dataset_name)
    return True


async def list_datasets(exchange: Exchange) -> Json:
    """Their dataset_info, by name."""
    return list[Json](await exchange.system.catalogue.datasets.listed(exchange.principal.key))


async def get_columns(exchange: Exchange, dataset_name: str) -> Json:
    """Its column_def."""
    return list[Json](await exchange.system.catalogue.datasets.columns(exchange.principal.key, dataset_name))


async def create_citation(exchange: Exchange, citation_label: str, source: str) -> Json:
    """Its citation_info."""
    return await exchange.system.catalogue.datasets.cite(exchange.principal.key, citation_label, source)


async def delete_citation(exchange: Exchange, citation_label: str) -> Json:
    """true."""
    await exchange.system.catalogue.datasets.uncite(exchange.principal.key, citation_label)
    return True


async def put_records(exchange: Exchange, dataset_name: str, records: Json, on_conflict: str) -> Json:
    """How many were registered or updated."""
    datasets = exchange.system.catalogue.datasets
    return await datasets.put(exchange.principal.key, dataset_name, records, on_conflict)  # type: ignore[arg-type]


async def get_records(
    exchange: Exchange,
    citation_label: str,
    columns: Json,
    condition: Json,
    offset: int,
    limit: int | None,
    order: Json,
) -> Encoded:
    """The records as objects."""
    datasets, key = exchange.system.catalogue.datasets, exchange.principal.key
    return Encoded(await datasets.get(key, citation_label, columns, condition, offset, limit, order))


async def delete_records(exchange: Exchange, dataset_name: str, condition: Json) -> Json:
    """How many those were."""
    return await exchange.system.catalogue.datasets.delete_records(exchange.principal.key, dataset_name, condition)


async def get_model_info(
    exchange: Exchange, model_store_ddc: str, conds: Json, offset: int, limit: int | None, order: Json
) -> Json:
    """Their model_info."""
    found = await exchange.system.catalogue.models.find(
        exchange.principal.key, model_store_ddc, conds, offset, 1000 if limit is None else limit, order
    )
    return [model.info for model in found]
