"""Everything HTTP: the JSON-RPC endpoints, the file service, forward-auth, probes. `app.create_app` joins them."""

from __future__ import annotations

from importlib import metadata
from typing import Final

VERSION: Final = metadata.version("dataproc")
