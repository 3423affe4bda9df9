"""What every test starts from: a process that carries no settings of the machine it runs on."""

from __future__ import annotations

import os

for _name in [name for name in os.environ if name.startswith(("DATAPROC_", "AWS_"))]:
    del os.environ[_name]
