"""What `kill -9` may cost."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from sqlalchemy import select

from dataproc.clock import SystemClock
from dataproc.database import Database
from dataproc.database.tables import keys

WRITER = """
import asyncio, sys
from sqlalchemy import insert
from dataproc.clock import SystemClock
from dataproc.database import Database
from dataproc.database.tables import keys

def add(name):
    row = dict(id=name, name=name, apikey=name, secret_digest=bytes(32), scopes="", grants="", created_at=1)
    return lambda connection: connection.execute(insert(keys), [row]).rowcount

async def writer(database, who):
    for n in range(100_000):
        name = f"{who}-{n}"
        await database.write(add(name))
        print(name, flush=True)

async def main():
    database = await Database.open(sys.argv[1], SystemClock())
    await asyncio.gather(*(writer(database, who) for who in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_a_kill(database_url: str) -> None:
    """A process that is killed between a write and a commit loses no write that its caller was told of."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, database_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        acknowledged = [process.stdout.readline().strip() for _ in range(200)]
        process.kill()
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert set(acknowledged) <= asyncio.run(_kept(database_url))


async def _kept(url: str) -> set[str]:
    database = await Database.open(url, SystemClock())
    kept = await database.read(lambda connection: set(connection.scalars(select(keys.c.name))))
    await database.close()
    return kept
