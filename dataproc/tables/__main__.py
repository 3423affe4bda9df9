"""`python -m dataproc.tables TARGET HEAD`: the rows on standard input as a table file.

A process of its own: reading a large result would hold up the server for seconds, and take its memory.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from dataproc.tables import Builder, NotATableError, rows_of

MEMORY = 4 * 2**30  # bytes
REFUSED = 3  # exit status: it is no table, and standard output says why


def main() -> int:
    """Read, build, write."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target, told = sys.argv[1:]
    head = json.loads(told)
    builder = Builder(head["declared"])
    try:
        builder.add(rows_of(sys.stdin.buffer))
        builder.write(Path(target), head)
    except NotATableError as error:
        sys.stdout.write(str(error))
        return REFUSED
    except MemoryError:
        sys.stdout.write("it takes more memory than a view may")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
