"""The xData APIs as their documentation calls them: open a session, keep its token in a file, run a method twice.

Needs DATAPROC_APIKEY and DATAPROC_SECRET for the first run; later runs go on in the same session, from the token in
the file (the first argument, or ~/.xdata_cache/xdata_token.json).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from xdata_dataproc.client import ApiV2 as DataprocApi
from xdata_session.client import ApiV2 as SessionApi

base = os.environ.get("DATAPROC_URL", "http://127.0.0.1:8000")
token_file = Path(sys.argv[1] if len(sys.argv) > 1 else "~/.xdata_cache/xdata_token.json").expanduser()

if token_file.exists():
    opened = json.loads(token_file.read_text())
else:
    sessions = SessionApi(
        f"{base}/api/v1/session/jsonrpc", os.environ["DATAPROC_APIKEY"], os.environ["DATAPROC_SECRET"]
    )
    opened = sessions.open_session()
    token_file.parent.mkdir(parents=True, exist_ok=True)
    token_file.touch(mode=0o600)  # a token is as good as the key, for its session
    token_file.write_text(json.dumps(opened))

dataproc = DataprocApi(f"{base}/api/v1/dataproc/jsonrpc", session_token=opened["access_token"])
first = dataproc.exec(module="test-module", method="session-test", input={}, output={}, params={})
second = dataproc.exec(module="test-module", method="session-test", input={}, output={}, params={})
print(first)
print(second)  # finds the artifact of the first
