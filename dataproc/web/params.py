"""Params of our own RPC methods, declared: checked on every call, and shown by `rpc.discover`.

Plain functions and dictionaries on purpose: this lies on the hot path, where a pydantic model would cost more than
the rest of the protocol. The `type` of an error entry is pydantic's word for the same fault, since params of modules
are refused by pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dataproc.errors import InvalidParams
from dataproc.types import JsonObject

Check = Callable[[Any], Any]
"""Gives the value to use, or raises ParamError."""

REQUIRED: Final[Any] = object()
MOST_FAULTS = 100  # told of one call: a million unknown names would make an answer larger than the question


class ParamError(ValueError):
    """A value is not what its param takes: the message for people, `kind` for programs."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Param:
    """One param. `by_name`: it has no place in the positional order. An object given as `default` is copied."""

    name: str
    check: Check
    schema: JsonObject
    summary: str
    default: Any = REQUIRED
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The params of one method, in positional order."""

    params: tuple[Param, ...]
    _checks: dict[str, Check] = field(init=False)
    _defaults: dict[str, Any] = field(init=False)
    _positions: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_checks", {param.name: param.check for param in self.params})
        object.__setattr__(self, "_defaults", {param.name: param.default for param in self.params})
        object.__setattr__(self, "_positions", tuple(param.name for param in self.params if not param.by_name))

    def bind(self, given: list[Any] | dict[str, Any]) -> dict[str, Any]:
        """Every param by name, checked, defaults filled in. Raises InvalidParams with an entry for each fault."""
        named = given if isinstance(given, dict) else self._named(given)
        bound: dict[str, Any] = {}
        faults: list[dict[str, Any]] = []
        for name, value in named.items():
            check = self._checks.get(name)
            if check is None:
                if len(faults) < MOST_FAULTS:
                    faults.append(_fault(name[:200], self._unknown(), "extra_forbidden"))
                continue
            try:
                bound[name] = check(value)
            except ParamError as error:
                faults.append(_fault(name, str(error), error.kind))
        for name, default in self._defaults.items():
            if name not in named:
                if default is REQUIRED:
                    faults.append(_fault(name, "is required", "missing"))
                else:
                    bound[name] = {} if default == {} else default
        if faults:
            raise _invalid(faults)
        return bound

    def _named(self, given: Sequence[Any]) -> dict[str, Any]:
        if len(given) > len(self._positions):
            most = f"takes {len(self._positions)} by position" if self._positions else "takes none by position"
            surplus = range(len(self._positions), len(given))[:MOST_FAULTS]
            raise _invalid(
                [_fault(index, f"is one too many: the method {most}", "extra_forbidden") for index in surplus]
            )
        return dict(zip(self._positions, given, strict=False))

    def _unknown(self) -> str:
        known = ", ".join(f"`{name}`" for name in self._checks)
        return f"is no param of this method, which takes {known or 'none'}"


def _fault(where: str | int, msg: str, kind: str) -> dict[str, Any]:
    return {"loc": [where], "msg": msg, "type": kind}


def _invalid(faults: list[dict[str, Any]]) -> InvalidParams:
    told = "; ".join(f"{fault['loc'][0]} {fault['msg']}" for fault in faults[:5])
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return InvalidParams(told + more, errors=faults)


def text(value: Any) -> str:
    """A string that is not empty."""
    if type(value) is not str:
        raise ParamError("is to be a string", "string_type")
    if not value:
        raise ParamError("is to be a string that is not empty", "string_too_short")
    return value


def any_text(value: Any) -> str:
    """A string, also an empty one."""
    if type(value) is not str:
        raise ParamError("is to be a string", "string_type")
    return value


def object_(value: Any) -> JsonObject:
    """A JSON object."""
    if type(value) is not dict:
        raise ParamError("is to be an object", "dict_type")
    return value


def boolean(value: Any) -> bool:
    """true or false."""
    if type(value) is not bool:
        raise ParamError("is to be true or false", "bool_type")
    return value


def anything(value: Any) -> Any:
    """Whatever is sent."""
    return value


def or_null(check: Check) -> Check:
    """The same, or null."""
    return lambda value: None if value is None else check(value)


def whole(least: int, most: int) -> Check:
    """An integer in these bounds (60.0 is one, true is none)."""

    def check(value: Any) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise ParamError("is to be an integer", "int_type")
        return int(_bounded(value, value >= least, value <= most, f"at least {least}", most))

    return check


def seconds(most: float) -> Check:
    """A duration above zero."""

    def check(value: Any) -> float:
        if type(value) is not int and type(value) is not float:
            raise ParamError("is to be a number of seconds", "float_type")
        return float(_bounded(value, value > 0, value <= most, "above 0", most))

    return check


def _bounded(value: float, high_enough: bool, low_enough: bool, lower: str, most: float) -> float:
    if not high_enough:
        raise ParamError(f"is to be {lower}", "greater_than")
    if not low_enough:
        raise ParamError(
            f"is to be at most {most:g}" if type(most) is float else f"is to be at most {most}", "less_than_equal"
        )
    return value


def choice(*words: str) -> Check:
    """One of these words."""

    def check(value: Any) -> str:
        if type(value) is not str or value not in words:
            raise ParamError(f"is to be one of {', '.join(words)}", "literal_error")
        return value

    return check


def string_map(value: Any) -> dict[str, str]:
    """An object of strings."""
    if type(value) is not dict or any(type(each) is not str for each in value.values()):
        raise ParamError("is to be an object of strings", "dict_type")
    return value


def text_list(value: Any) -> list[str]:
    """An array of strings."""
    if type(value) is not list or any(type(each) is not str for each in value):
        raise ParamError("is to be an array of strings", "list_type")
    return value
