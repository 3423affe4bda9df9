"""Frames from processes that are not trusted: cut however they come, and read as the standard library reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataproc.engine.decoder import Decoder
from dataproc.engine.frames import FrameError, encode, frame
from dataproc.engine.output import Output
from dataproc.engine.words import Task, order_of, usage_of
from dataproc.runs import Usage

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_MESSAGES = st.lists(st.dictionaries(st.text(), _VALUES, max_size=4), min_size=1, max_size=3)


@given(_MESSAGES, st.integers(1, 40))
def test_any_cut_gives_the_same_messages(messages: list[dict[str, Any]], piece: int) -> None:
    """A stream gives its messages, in order, in whatever pieces it comes."""
    stream = b"".join(map(encode, messages))
    decoder = Decoder(2**20)
    got = [each for at in range(0, len(stream), piece) for each in decoder.feed(stream[at : at + piece])]
    assert got == messages


@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b'{"a":' + b"[" * 400 + b"]" * 400 + b"}", b'{"a":1,"a":2}'])
def test_what_the_quick_reader_does_not_know(body: bytes) -> None:
    """Lone surrogates, depth and repeated names are what the standard library makes of them."""
    assert Decoder(2**20).feed(frame(body)) == [json.loads(body)]


@pytest.mark.parametrize(
    "stream", [frame(b"[1]"), frame(b"{"), frame(b"\xff"), frame(b'{"a":1} 2'), frame(b""), b"\xff\xff\xff\xff{}"]
)
def test_what_is_no_frame_is_refused(stream: bytes) -> None:
    """No object, no JSON, or longer than the limit."""
    with pytest.raises(FrameError):
        Decoder(2**20).feed(stream)


@given(st.dictionaries(st.text(st.characters()), _VALUES | st.just("\ud800"), max_size=4))
def test_an_order_says_what_it_was_given(params: dict[str, Any]) -> None:
    """A worker reads the params as the caller sent them, lone surrogates too."""
    output = Output.__new__(Output)
    order = order_of(Task("run", "method", params, 1.0, 1.0, output, {"in": "a"}, {}))
    read = json.loads(order[4:].decode("utf-8", "surrogatepass"))
    assert read == {"op": "run", "run": "run", "method": "method", "params": params, "input": {"in": "a"}, "output": {}}


@pytest.mark.parametrize("told", [None, [], [1, 2, 3], [1, 2, 3, 2**62], [1, 2, 3, -1], [1, 2, 3, True], "1234", {}])
def test_use_that_is_none(told: Any) -> None:
    """What a worker says of its use has to be four numbers that fit a database."""
    assert usage_of(told) is None
    assert usage_of([2_000_000, 2, 3, 4]) == Usage(2.0, 2, 3, 4)
