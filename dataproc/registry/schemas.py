"""A published JSON Schema, judged and compiled. The schema comes from a module, so it is hostile input.

What the server checks must cost little whatever the schema and the params are: patterns run on an engine with a bound
on backtracking, nothing is fetched, and a schema that refers back to itself is followed once. What lies deeper is
left to the second check, in the worker, under the run's time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import jsonschema_rs
from jsonschema_rs import Draft202012Validator, FancyRegexOptions, ValidationErrorKind

from dataproc.errors import InvalidParams
from dataproc.module import ModuleBroken

MAX_COST = 5_000  # sub-schemas after every reference is written out
MAX_DEPTH = 60
MAX_ERRORS = 100
MAX_SAID = 2**20  # characters of the validator's own messages, which hold the values
MAX_MESSAGE = 300
PATTERNS = FancyRegexOptions(backtrack_limit=10_000, size_limit=2**20, dfa_size_limit=2**20)
NAMED = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})  # name -> schema
DATA = frozenset({"default", "const", "enum", "examples", "required", "dependentRequired", "discriminator"})
REFUSED = frozenset({"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "definitions"})
LOCAL = "#/$defs/"

Check = Callable[[dict[str, Any]], None]


def compile_check(schema: dict[str, Any]) -> Check:
    """A function that raises InvalidParams, one error a field, for params that the schema refuses.

    ModuleBroken where the schema is no JSON Schema 2020-12, refers outside, or would be too costly to check.
    """
    if schema.get("type") != "object":
        raise ModuleBroken("the schema of the params must be of type object")
    validator = _compiled(_Unrolled(schema).root)
    is_valid, names = validator.is_valid, ", ".join(sorted(schema.get("properties", {})))

    def check(params: dict[str, Any]) -> None:
        if not is_valid(params):
            raise _refusal(list(islice(_errors(validator, params, names), MAX_ERRORS)))

    return check


def check_schema(schema: dict[str, Any]) -> None:
    """Judge a schema that is only published. ModuleBroken as in `compile_check`."""
    _compiled(_Unrolled(schema).root)


def _compiled(schema: dict[str, Any]) -> Draft202012Validator:
    try:
        return Draft202012Validator(schema, offline=True, validate_formats=False, pattern_options=PATTERNS)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise ModuleBroken(f"a schema is not valid: {str(error).partition(chr(10))[0][:MAX_MESSAGE]}") from None


class _Unrolled:
    """A copy of a schema in which a reference back into a definition that is being followed allows anything."""

    def __init__(self, schema: dict[str, Any]) -> None:
        definitions = schema.get("$defs", {})
        if not isinstance(definitions, dict):
            raise ModuleBroken("$defs must be an object")
        self._definitions: dict[str, Any] = definitions
        self._done: dict[str, tuple[Any, int]] = {}
        self._open: set[str] = set()
        root, cost = self._follow({key: value for key, value in schema.items() if key != "$defs"}, 0)
        if cost > MAX_COST:
            raise ModuleBroken(f"a schema of more than {MAX_COST} parts is too costly to check")
        self.root: dict[str, Any] = {**root, "$defs": {name: body for name, (body, _) in self._done.items()}}

    def _follow(self, schema: Any, depth: int) -> tuple[Any, int]:
        """The copy and its cost."""
        if isinstance(schema, bool):
            return schema, 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            raise ModuleBroken("a schema is not valid" if depth <= MAX_DEPTH else "a schema is nested too deep")
        copy, cost = {}, 1
        for key, value in schema.items():
            if key in REFUSED:
                raise ModuleBroken(f"a schema uses {key}, which is not served")
            copy[key], added = self._keyword(key, value, depth)
            cost += added
        return copy, cost

    def _keyword(self, key: str, value: Any, depth: int) -> tuple[Any, int]:
        if key == "$ref":
            return self._reference(value, depth)
        if key in DATA:
            return value, 1
        if key in NAMED and isinstance(value, dict):
            parts = {name: self._follow(part, depth + 1) for name, part in value.items()}
            return {name: part for name, (part, _) in parts.items()}, sum(cost for _, cost in parts.values())
        if isinstance(value, dict):
            return self._follow(value, depth + 1)
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            listed = [self._follow(part, depth + 1) for part in value]
            return [part for part, _ in listed], sum(cost for _, cost in listed)
        return value, 1

    def _reference(self, value: Any, depth: int) -> tuple[Any, int]:
        name = value.removeprefix(LOCAL) if isinstance(value, str) and value.startswith(LOCAL) else None
        if name is None or "/" in name:
            raise ModuleBroken(f"a schema refers to {str(value)[:100]!r}; only its own $defs can be referred to")
        name = name.replace("~1", "/").replace("~0", "~")
        if name not in self._definitions:
            raise ModuleBroken(f"a schema refers to {name[:100]!r}, which its $defs do not hold")
        if name in self._open:
            self._done.setdefault(ANYTHING, (True, 1))
            return f"{LOCAL}{ANYTHING}", 1
        if name not in self._done:
            self._open.add(name)
            self._done[name] = self._follow(self._definitions[name], depth + 1)
            self._open.discard(name)
        return value, self._done[name][1]


ANYTHING = "(anything)"


def _refusal(errors: list[dict[str, Any]]) -> InvalidParams:
    said = "; ".join(f"{'.'.join(str(part) for part in one['loc']) or 'params'}: {one['msg']}" for one in errors[:3])
    return InvalidParams(said + (f"; and {len(errors) - 3} more" if len(errors) > 3 else ""), errors=errors)


def _errors(validator: Draft202012Validator, params: dict[str, Any], names: str) -> Iterator[dict[str, Any]]:
    """One entry a field, named as the second check names it."""
    said = 0
    for error in validator.iter_errors(params):
        loc, kind = list(error.instance_path), error.kind
        if (said := said + len(error.message)) > MAX_SAID and loc:
            yield {"loc": loc, "msg": "not valid", "type": kind.name}
            return
        match kind:
            case ValidationErrorKind.AdditionalProperties(unexpected=unexpected):
                what = f"unexpected; the params are: {names or 'none'}" if not loc else "unexpected"
                yield from ({"loc": [*loc, name], "msg": what, "type": "extra_forbidden"} for name in unexpected)
            case ValidationErrorKind.Required(property=missing):
                yield {"loc": [*loc, missing], "msg": "required", "type": "missing"}
            case ValidationErrorKind.AnyOf(context=branches) | ValidationErrorKind.OneOfNotValid(context=branches):
                wanted = " or: ".join(branch[0].message[-MAX_MESSAGE:] for branch in branches[:5] if branch)
                yield {"loc": loc, "msg": wanted, "type": kind.name}
            case _:
                yield {"loc": loc, "msg": error.message[-MAX_MESSAGE:], "type": kind.name}
