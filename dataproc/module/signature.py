"""From a function's signature to what checks its params, and to the JSON Schemas that are published."""

from __future__ import annotations

import inspect
import types
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from typing_extensions import TypedDict

from dataproc.module.broken import ModuleBroken
from dataproc.module.context import Context
from dataproc.module.failure import message_of

Returns = Literal["nothing", "value", "unknown"]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NO_SHAPE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a method takes and gives.

    context: the name of the parameter that gets the `Context`, or None.
    validate: checks a dict of params and gives the keyword arguments; raises pydantic's ValidationError.
    params, result: JSON Schemas 2020-12; `result` is None where the annotation has none.
    """

    context: str | None
    validate: Callable[[Any], dict[str, Any]]
    params: dict[str, Any]
    result: dict[str, Any] | None
    returns: Returns


def read_signature(function: Callable[..., Any]) -> Signature:
    """The signature of a method; ModuleBroken says which parameter cannot be served and why."""
    hints = _hints(function)
    context, fields = None, {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, Any)
        if _is_context(hint):
            if context is not None:
                raise ModuleBroken(f"parameters {context!r} and {name!r} are both a Context")
            context = name
            continue
        fields[name] = _field(parameter, hint)
    adapter = _params_adapter(fields)
    returns: Returns = "unknown" if "return" not in hints else "nothing" if hints["return"] in _NOTHING else "value"
    result = (
        _result_schema(hints["return"]) if returns == "value" else {"const": True} if returns == "nothing" else None
    )
    return Signature(context, adapter.validator.validate_python, _schema(adapter, "validation"), result, returns)


_NOTHING = (None, type(None), typing.NoReturn, typing.Never)


class _Schema(GenerateJsonSchema):
    """pydantic's schemas without the titles that only repeat a field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations as types. `Context` may stand under `if TYPE_CHECKING`."""
    inner = inspect.unwrap(function)
    names = {"Context": Context, **getattr(inner, "__globals__", {})}
    try:
        return typing.get_type_hints(inner, names, include_extras=True)
    except Exception as error:
        raise ModuleBroken(f"an annotation cannot be read: {message_of(error, 500)}") from error


def _is_context(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_is_context(part) for part in typing.get_args(hint))
    return isinstance(hint, type) and issubclass(hint, Context)


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    """One member of the params: its type, with the signature's default."""
    name, default = parameter.name, parameter.default
    if parameter.kind in _NO_SHAPE:
        star = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
        raise ModuleBroken(f"{star}{name} has no schema: name each parameter, or take one dict or list")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise ModuleBroken(f"parameter {name!r} is positional-only, and params come by name: remove the '/'")
    if name == "ctx" and parameter.annotation is parameter.empty:
        raise ModuleBroken("parameter 'ctx' has no annotation: write `ctx: Context`")
    if default is parameter.empty:
        return Required[hint]
    if isinstance(default, FieldInfo):
        return Required[Annotated[hint, default]] if default.is_required() else NotRequired[Annotated[hint, default]]
    return NotRequired[Annotated[hint, Field(default=default)]]


def _params_adapter(fields: dict[str, Any]) -> TypeAdapter[Any]:
    """The check of all params at once; on failure the one that is to blame is named."""
    try:
        return _adapter(fields)
    except Exception as error:
        for name, hint in fields.items():
            try:
                _schema(_adapter({name: hint}), "validation")
            except Exception as cause:
                raise ModuleBroken(f"parameter {name!r} has no JSON Schema: {_first_line(cause)}") from cause
        raise ModuleBroken(f"the parameters have no JSON Schema: {_first_line(error)}") from error


def _adapter(fields: dict[str, Any]) -> TypeAdapter[Any]:
    # A TypedDict and no model: any name is a legal field, and what comes out is the keyword arguments.
    shape = TypedDict("params", fields)  # type: ignore[misc]
    setattr(shape, "__pydantic_config__", ConfigDict(extra="forbid"))  # noqa: B010 - no declared attribute
    adapter = TypeAdapter[Any](shape)
    _schema(adapter, "validation")
    return adapter


def _result_schema(hint: Any) -> dict[str, Any] | None:
    try:
        return _schema(TypeAdapter[Any](hint), "serialization")
    except Exception:  # a data frame, a class of the author's: served all the same, if its value has a JSON form
        return None


def _schema(adapter: TypeAdapter[Any], mode: JsonSchemaMode) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a default without a JSON form is left out of the schema
        schema = adapter.json_schema(mode=mode, schema_generator=_Schema)
    if schema.get("title") == "params":
        del schema["title"]
    return {"$schema": DIALECT, **schema}


def _first_line(error: BaseException) -> str:
    return message_of(error, 500).partition("\n")[0]
