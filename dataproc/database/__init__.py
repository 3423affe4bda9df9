"""The database: keys, tokens, sessions and runs, in SQLite or PostgreSQL."""

from dataproc.database.connect import UnusableDatabase as UnusableDatabase
from dataproc.database.connect import shown as shown
from dataproc.database.core import Database as Database
from dataproc.database.runs import RunStore as RunStore
from dataproc.database.schema import NewerSchemaError as NewerSchemaError
