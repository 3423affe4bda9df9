"""A view of many rows, kept in a session: pages of it, in the order of its rows and in others, and filters."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from urllib.parse import urlencode

from benchmarks.bench import Bench
from benchmarks.harness import Finding, Measured
from benchmarks.ours import Ours

NAME = "views"
BASE = "/cra/ServiceGateway/Services/DATAPROC"
PAGE = 100
PATIENCE = 600.0  # seconds for the run itself
KNOWN_ORDER = "C.A&D.D&E.A&F.D"


def run(bench: Bench) -> Measured:
    """Milliseconds of each kind of page, p50; of first sorts and filters each is asked for once."""
    rows, options = bench.options.rows, bench.options
    view = Viewer(bench.ours, rows)
    starts = itertools.cycle(range(1, rows, max(1, rows // 97)))
    view.page(sort=KNOWN_ORDER)
    kinds: dict[str, tuple[float, Callable[[], float]]] = {
        f"page of {PAGE} rows of {rows:,}": (10, lambda: view.page(startRow=next(starts))),
        "the same in an order used before": (10, lambda: view.page(startRow=next(starts), sort=KNOWN_ORDER)),
        "first sort by four columns": (300, _once(view, "sort", _orders())),
        "first use of a filter": (100, _once(view, "filter", _filters())),
    }
    found: Measured = []
    for what, (target, ask) in kinds.items():
        calls = options.calls if target == 10 else 1
        seen = [median(ask() for _ in range(calls)) for _ in range(options.rounds)]
        found.append(Finding(NAME, what, median(seen), "at most", target, "ms", (min(seen), max(seen))))
    return found


def _once(view: Viewer, name: str, values: Iterator[str]) -> Callable[[], float]:
    return lambda: view.page(**{name: next(values)})


def _orders() -> Iterator[str]:
    """Orders of four columns, all of them with one whose values are all different."""
    for others in itertools.permutations("BCDEF", 3):
        yield "&".join(f"{letter}.{way}" for letter, way in zip((*others, "A"), "ADAD", strict=True))


def _filters() -> Iterator[str]:
    """Of each kind in turn: equal, beginning, holding, and two of them."""
    for number in itertools.count(10):
        yield f"wind={number}"
        yield f"name=station-{number}*"
        yield f"name=*{number}*"
        yield f"city=O*&temp={number}.25"


class Viewer:
    """Somebody logged on, with a session that has the rows."""

    def __init__(self, server: Ours, rows: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        login = urlencode({"username": server.key["apikey"], "password": server.key["secret"]})
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        token = self._ask("POST", f"{BASE}/Logon", login, form)["userToken"]
        self._headers = {"Authorization": f"Bearer {token}"}
        self._rows = rows
        self._headers["session"] = self._data({"close": "false", "numRows": 1})["session"]

    def page(self, **query: Any) -> float:
        """Milliseconds of one page."""
        begun = time.perf_counter()
        found = self._data({"numRows": PAGE, **query})
        taken = time.perf_counter() - begun
        if found["rc"] != 0 or ("filter" not in query and found["totalRowCount"] != self._rows):
            raise RuntimeError(f"that is no page: {str(found)[:300]}")
        return 1e3 * taken

    def _data(self, query: dict[str, Any]) -> dict[str, Any]:
        asked = urlencode({"rows": self._rows, **query})
        path = f"{BASE}/products/bench-views/views/measured/data?{asked}"
        found: dict[str, Any] = self._ask("GET", path, None, self._headers)
        return found

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Any:
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        answer = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: status {reply.status}: {answer[:300]!r}")
        return json.loads(answer)
