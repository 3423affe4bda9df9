"""Run methods of modules on a dataproc server, in sessions that keep their files.

`Client` is for new programs; `xdata_dataproc.client.ApiV2` is the API as xData programs import it. The errors are
those of `dataproc_client.errors`.
"""

from dataproc_client import errors
from dataproc_client.errors import DataprocError
from xdata_dataproc.aio import AsyncClient, AsyncRun, AsyncSession
from xdata_dataproc.files import FileInfo, Files
from xdata_dataproc.runs import Event, Run
from xdata_dataproc.session import Client, Session

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "AsyncSession",
    "Client",
    "DataprocError",
    "Event",
    "FileInfo",
    "Files",
    "Run",
    "Session",
    "errors",
]
