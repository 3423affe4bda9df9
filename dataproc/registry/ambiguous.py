"""Which params of a method leave open what a value means: read from the schema that callers see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dataproc.registry.description import MethodInfo

Schema = dict[str, Any]

SHAPED = frozenset({"type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf", "not"})
OVERLAPPING = {"integer": "number"}  # every integer is a number too


def ambiguities(method: MethodInfo) -> list[str]:
    """One line for each param that is ambiguous, with the remedy."""
    defined = method.params.get("$defs", {})
    found = []
    for name, schema in method.params.get("properties", {}).items():
        found += [f"param {name!r}{why}" for why in _doubts(schema, defined, ())]
    for name, schema in defined.items():
        for field, inner in schema.get("properties", {}).items():
            found += [f"field {field!r} of {name}{why}" for why in _doubts(inner, defined, ())]
    return found


def _doubts(schema: Any, defined: Schema, path: tuple[str, ...]) -> Iterator[str]:
    where = "".join(f", {step}" for step in path)
    if schema is True or (isinstance(schema, dict) and not SHAPED & schema.keys()):
        if not (isinstance(schema, dict) and schema.get("description")):
            yield (
                f"{where}: any JSON is taken. Annotate it; if any JSON is meant, say so: "
                "Annotated[Any, Field(description=…)]"
            )
        return
    if not isinstance(schema, dict):
        return
    yield from _alternatives(schema, defined, where)
    for number, member in enumerate(schema.get("anyOf", [])):
        if not _loose(member):
            yield from _doubts(member, defined, (*path, f"alternative {number + 1}"))
    if schema.get("type") == "array" and "prefixItems" not in schema:
        yield from _inner(schema.get("items", True), "items of a list without a type: write list[…]", defined, path)
    if schema.get("type") == "object" and "properties" not in schema:
        inner = schema.get("additionalProperties", schema.get("patternProperties", True))
        yield from _inner(inner, "values of an object without a type: write dict[str, …]", defined, path)


def _inner(schema: Any, told: str, defined: Schema, path: tuple[str, ...]) -> Iterator[str]:
    if _loose(schema):
        yield f"{''.join(f', {step}' for step in path)}: {told}"
    else:
        yield from _doubts(schema, defined, (*path, "its items"))


def _loose(schema: Any) -> bool:
    return schema is True or (isinstance(schema, dict) and not SHAPED & schema.keys() and "description" not in schema)


def _alternatives(schema: Schema, defined: Schema, where: str) -> Iterator[str]:
    """Alternatives of a union that one JSON value can be both of, so that the order decides what it becomes."""
    seen: dict[str, str] = {}
    for member in schema.get("anyOf", []):
        if _loose(member):
            yield f"{where}: one of its alternatives is any JSON, so the others say nothing"
            continue
        kind, told = _kind(member, defined)
        if kind is None:
            continue
        for wider in (kind, OVERLAPPING.get(kind), *(k for k, v in OVERLAPPING.items() if v == kind)):
            if wider is not None and wider in seen:
                yield (
                    f"{where}: a value can be {seen[wider]} and {told}: keep one, or tell them apart by a field "
                    "(Field(discriminator=…))"
                )
        seen[kind] = told


def _kind(member: Schema, defined: Schema) -> tuple[str | None, str]:
    """The JSON type of an alternative, None for single values (they tell themselves apart); and its words."""
    if "$ref" in member:
        name = str(member["$ref"]).rpartition("/")[2]
        return _kind(defined.get(name, {}), defined)[0], name
    if "const" in member or "enum" in member:
        return None, ""
    kind = member.get("type")
    text = f"{kind} ({member['format']})" if "format" in member else str(kind)
    return (kind if isinstance(kind, str) else None), text
