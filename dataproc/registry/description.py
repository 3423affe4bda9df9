"""What a module says of itself, judged: bounded models over hostile input, and the values that other rooms use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dataproc.module import ModuleBroken
from dataproc.registry.schemas import Check, check_schema, compile_check

MAX_METHODS = 1_000
MAX_SCHEMA = 256 * 1024
MAX_DAYS = 366 * 86400.0

Text = Annotated[str, Field(max_length=64 * 1024)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Names = Annotated[list[Name], Field(max_length=100)]
Returns = Literal["nothing", "value", "unknown"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a method asks of its worker; None leaves it to the settings. Seconds, bytes, counts."""

    timeout: float | None = None
    grace: float | None = None
    memory: int | None = None
    processes: int | None = None
    network: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A method that is a command of an xData script module.

    type: as its definition says. command: words; a program or file of the module first. environment: variables of the
    service. links: names that the current directory shows, and the files of the module behind them. input, output:
    the definitions by name.
    """

    type: str
    command: tuple[str, ...]
    environment: dict[str, str]
    links: dict[str, str]
    input: dict[str, dict[str, Any]]
    output: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """One method as it is published.

    params, result: JSON Schemas 2020-12; no `result` where what it returns is not known. check: raises InvalidParams
    for params that the schema refuses. returns: `nothing` answers true always, `unknown` answers true for None.
    """

    module: str
    name: str
    description: str
    params: dict[str, Any]
    result: dict[str, Any] | None
    returns: Returns
    limits: Limits
    exclusive: bool
    reads_only: bool
    view: bool
    input: tuple[str, ...]
    output: tuple[str, ...]
    retries: int
    check: Check
    script: Script | None = None

    def published(self) -> dict[str, Any]:
        """The method's part of `describe_module`."""
        script = self.script
        definitions = None if script is None else {"input": script.input, "output": script.output}
        return {
            "name": self.name,
            "description": self.description,
            "params": self.params,
            "result": {} if self.result is None else self.result,
            "timeout": self.limits.timeout,
            "exclusive": self.exclusive,
            "reads_only": self.reads_only,
            "view": self.view,
            "network": self.limits.network,
            "input": list(self.input),
            "output": list(self.output),
            **({} if script is None else {"type": script.type, "definitions": definitions}),
        }


@dataclass(frozen=True, slots=True)
class Description:
    """A module's own words: its name (an alias), version, text, and methods by name."""

    alias: str
    version: str
    text: str
    fork: bool
    methods: dict[str, MethodInfo]


def read_description(module: str, raw: object) -> Description:
    """The description that a module gave; ModuleBroken says what is wrong with it."""
    try:
        told = _Module.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise ModuleBroken(f"its description is not acceptable: {where}: {first['msg'][:300]}") from None
    methods: dict[str, MethodInfo] = {}
    for one in told.methods:
        if one.name in methods:
            raise ModuleBroken(f"method {one.name!r} is described twice")
        methods[one.name] = _method(module, one)
    return Description(told.name, told.version, told.description, told.fork, methods)


class _Method(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    name: Name
    description: Text = ""
    params: dict[str, Any]
    result: dict[str, Any] | None = None
    returns: Returns = "unknown"
    timeout: Annotated[float, Field(gt=0, le=MAX_DAYS)] | None = None
    grace: Annotated[float, Field(ge=0, le=MAX_DAYS)] | None = None
    exclusive: bool = False
    reads_only: bool = False
    view: bool = False
    input: Names = []
    output: Names = []
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    network: bool = False
    memory: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    processes: Annotated[int, Field(gt=0, lt=2**31)] | None = None


class _Module(BaseModel):
    model_config = ConfigDict(strict=True)

    name: Name
    version: Annotated[str, Field(max_length=100)] = ""
    description: Text = ""
    fork: bool = True
    methods: Annotated[list[_Method], Field(max_length=MAX_METHODS)] = []


def _method(module: str, told: _Method) -> MethodInfo:
    try:
        for schema in (told.params, told.result):
            if len(json.dumps(schema)) > MAX_SCHEMA:
                raise ModuleBroken(f"a schema is larger than {MAX_SCHEMA} bytes")
        check = compile_check(told.params)
        if told.result is not None:
            check_schema(told.result)
    except (ModuleBroken, ValueError, RecursionError) as error:
        raise ModuleBroken(f"method {told.name!r}: {error}") from None
    return MethodInfo(
        module=module,
        name=told.name,
        description=told.description,
        params=told.params,
        result=told.result,
        returns=told.returns,
        limits=Limits(told.timeout, told.grace, told.memory, told.processes, told.network),
        exclusive=told.exclusive,
        reads_only=told.reads_only,
        view=told.view,
        input=tuple(told.input),
        output=tuple(told.output),
        retries=told.retries,
        check=check,
    )
