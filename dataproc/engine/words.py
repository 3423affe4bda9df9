"""One run as a worker is told of it, and what the worker says of it, judged: hostile input becomes values here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from dataproc.engine import frames
from dataproc.engine.output import Output
from dataproc.errors import ExecFailed, InvalidParams, TooLarge
from dataproc.runs import Completed, Failed, Outcome, Usage

MOST_TOLD = 1000  # characters of a progress message


def _nobody(report: dict[str, Any]) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run as a worker is told of it. timeout and grace in seconds; hears: takes its reports of progress."""

    run: str
    method: str
    params: dict[str, Any]
    timeout: float
    grace: float
    output: Output
    inputs: dict[str, str]
    outputs: dict[str, str]
    hears: Callable[[dict[str, Any]], None] = _nobody


def order_of(task: Task) -> bytes:
    """The frame that has a worker do it."""
    order = {"op": "run", "run": task.run, "method": task.method, "params": task.params}
    order |= {"input": task.inputs, "output": task.outputs}
    try:
        return frames.frame(to_json(order))
    except PydanticSerializationError:  # a lone surrogate, which the standard library's writer takes
        return frames.encode(order)


def progress_of(report: dict[str, Any]) -> dict[str, Any]:
    """A report of progress as it is shown. Raises for one that is none."""
    fraction = float(report["fraction"])
    if not 0 <= fraction <= 1:
        raise ValueError("progress beyond its bounds")
    return {"fraction": fraction, "message": str(report["message"])[:MOST_TOLD]}


def usage_of(told: Any) -> Usage | None:
    """What a worker says that its run used: microseconds, bytes, bytes, bytes. None where it says nothing of use."""
    if type(told) is not list or len(told) != 4:
        return None
    for each in told:
        if type(each) is not int or not 0 <= each < 2**62:
            return None
    return Usage(told[0] / 1e6, told[1], told[2], told[3])


def outcome_of(message: dict[str, Any], task: Task) -> Outcome:
    """What a worker's last frame of a run says. Raises for one that says nothing known."""
    match message:
        case {"done": "returned", "result": result, "messages": list(messages)}:
            return Completed(result, tuple(map(str, messages)))
        case {"done": "refused", "errors": list(errors)}:
            first = f"{'.'.join(map(str, errors[0]['loc']))}: {errors[0]['msg']}" if errors else "refused"
            return Failed(InvalidParams(first, errors=errors))
        case {"done": "raised", "type": str(kind), "message": str(text), **more}:
            known = {name: more[name] for name in ("traceback", "exit_code") if more.get(name) not in (None, "")}
            how = "returned what is no JSON" if more.get("not_json") else "raised"
            return Failed(ExecFailed(f"{task.method} {how}: {kind}: {text}", type=kind, message=text, **known))
        case {"done": "too_large", "size": int(size), "limit": int(limit)}:
            told = f"a result of {size} bytes, the limit is {limit} (DATAPROC_RESULT_MAX); write it to a session file"
            return Failed(TooLarge(told, limit=limit, size=size))
        case {"done": "broken", "reason": str(reason)}:
            return Failed(ExecFailed(f"the module cannot be imported: {reason}", type="ModuleBroken", message=reason))
    raise ValueError(f"an unknown end of a run: {json.dumps(message)[:80]}")
