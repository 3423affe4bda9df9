"""Kept tables: the rows of a view in a file that is paged, sorted and filtered without reading it whole.

Columns are dictionary-encoded: each distinct value stands once, as JSON, in sort order, and a row holds its place
there. So a sort is one of small integers, a filter looks at distinct values alone, and a page is put together from
bytes. Numbers come before text, text before arrays and objects, and null comes last. Needs numpy alone.
"""

from dataproc.tables.build import Builder as Builder
from dataproc.tables.build import NotATableError as NotATableError
from dataproc.tables.reading import rows_of as rows_of
from dataproc.tables.selection import Condition as Condition
from dataproc.tables.selection import Order as Order
from dataproc.tables.selection import select as select
from dataproc.tables.shelf import Shelf as Shelf
from dataproc.tables.table import Column as Column
from dataproc.tables.table import Table as Table
