"""Fails while it is imported."""


def fail() -> None:
    raise LookupError("no such table of constants")


fail()
