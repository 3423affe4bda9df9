"""Models learnt from a session's tables: train, predict, evaluate. On scikit-learn."""

import os

# Cores are counted here: joblib's own count reads files that a worker does not see, and warns of it.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(len(os.sched_getaffinity(0))))
# Threads of a barrier sleep instead of spinning: cores are shared with other sessions.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from .methods import module

__all__ = ["module"]
