"""dataproc: Python methods by JSON-RPC, in session directories that only the session can reach.

For module authors: `Module`, `Context`. The server's rooms are imported by name, never from here: what a worker
imports must stay small.
"""

from dataproc.module import Context, Module

__all__ = ["Context", "Module"]
