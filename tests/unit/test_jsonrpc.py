"""The protocol core: what is JSON-RPC, what is not, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataproc import jsonrpc
from dataproc.errors import DataprocError, InvalidParams, InvalidRequest, Overloaded, ParseError
from dataproc.jsonrpc import Batch, Encoded, Rejected, Request


def request(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "m", "id": 1, **members}).encode()


def refused(body: bytes) -> ParseError:
    with pytest.raises(ParseError) as caught:
        jsonrpc.parse(body)
    return caught.value


@pytest.mark.parametrize("params", [[], {}, [1, "a"], {"a": None}])
def test_params_by_position_and_by_name(params: Any) -> None:
    """Params arrive as they were sent, a list or a dict."""
    assert jsonrpc.parse(request(params=params)) == Request("m", params, 1)


def test_params_left_out_are_none_by_name() -> None:
    """A call without params is a call with an empty object."""
    assert jsonrpc.parse(request()) == Request("m", {}, 1)


@pytest.mark.parametrize("sent", ["1", '"a"', '""', "null", "1.5", "1.0", "-7", "12345678901234567890123", "-0.0"])
def test_an_id_comes_back_with_its_type(sent: str) -> None:
    """Strings, numbers of any size and fraction, and null are echoed as what they were."""
    asked = jsonrpc.parse(b'{"jsonrpc":"2.0","method":"m","id":%b}' % sent.encode())
    assert isinstance(asked, Request)
    assert not asked.notification
    assert jsonrpc.answer(asked.id, True).endswith(b'"id":' + sent.encode() + b"}")


@pytest.mark.parametrize("sent", [True, False, [], {}, [1]])
def test_an_id_of_another_type_is_refused(sent: Any) -> None:
    """An id that is a boolean, an array or an object is no id, and is not echoed."""
    asked = jsonrpc.parse(request(id=sent))
    assert isinstance(asked, Rejected)
    assert asked.id is None
    assert "`id`" in asked.error.message


def test_a_request_without_id_is_a_notification() -> None:
    """Only a missing id makes a notification; null does not."""
    asked = jsonrpc.parse(b'{"jsonrpc":"2.0","method":"m"}')
    assert isinstance(asked, Request)
    assert asked.notification


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"jsonrpc": "1.0"}, "`jsonrpc`"),
        ({"jsonrpc": 2.0}, "`jsonrpc`"),
        ({"method": 1}, "`method`"),
        ({"method": None}, "`method`"),
        ({"params": "bar"}, "`params`"),
        ({"params": None}, "`params`"),
        ({"params": 0}, "`params`"),
    ],
)
def test_what_is_no_request_says_why_and_keeps_its_id(members: dict[str, Any], named: str) -> None:
    """A faulty member is named; an id that can be read is answered."""
    asked = jsonrpc.parse(request(**members))
    assert isinstance(asked, Rejected)
    assert named in asked.error.message
    assert asked.id == 1


@pytest.mark.parametrize("body", [b"1", b'"a"', b"null", b"true", b"1.5"])
def test_a_bare_value_is_no_request(body: bytes) -> None:
    """JSON that is neither object nor array is an invalid request, not a parse error."""
    assert isinstance(jsonrpc.parse(body), Rejected)


def test_an_empty_batch_is_refused() -> None:
    """An empty array is an invalid request as a whole."""
    with pytest.raises(InvalidRequest):
        jsonrpc.parse(b"[]")


def test_a_batch_keeps_good_and_bad_apart() -> None:
    """Each member of a batch is judged alone, in the order sent."""
    asked = jsonrpc.parse(b"[1," + request() + b",[]]")
    assert isinstance(asked, Batch)
    assert [type(item) for item in asked.items] == [Rejected, Request, Rejected]


def test_a_batch_above_the_limit_is_refused() -> None:
    """A batch is bounded in calls, and the refusal names the bound, its value and the use."""
    with pytest.raises(InvalidRequest) as caught:
        jsonrpc.parse(b"[1,1,1]", max_batch=2)
    assert caught.value.data == {"limit": 2, "used": 3}
    assert "DATAPROC_BATCH_LIMIT" in caught.value.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[NaN]", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "-Infinity"),
        (b'{"a":1e999}', "1e999"),
        (b"[-1e400]", "-1e400"),
        (b'{"a":1,"a":2}', '"a" stands twice'),
        (b'[{"b":{"c":1,"d":2,"\\u0063":3}}]', '"c" stands twice'),
        (b"{} {}", "follows the value at line 1 column 4"),
        (b'{"a":}', "line 1 column 6"),
        (b"{'a':1}", "line 1 column 2"),
        (b'{"a":1,}', "line 1"),
        (b"[1\n,,]", "line 2 column 2"),
        (b'"a\nb"', "control character"),
        (b'"\\x"', "escape"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\uD83D\\u0041"', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b"[01]", "line 1 column 3"),
        (b"[+1]", "line 1 column 2"),
        (b"[.5]", "line 1 column 2"),
        (b"/* a */ 1", "line 1 column 1"),
        (b"9" * 5000, "digits"),
    ],
)
def test_what_is_no_json_is_told_which_way(body: bytes, said: str) -> None:
    """Every way of being no JSON has its own message, with the place where it is known."""
    assert said.lower() in refused(body).message.lower()


@pytest.mark.parametrize("pair", [b'"\\ud83d\\ude00"', '"😀"'.encode(), b'"\\\\ud800"'])
def test_a_whole_surrogate_pair_is_text(pair: bytes) -> None:
    """A pair of escapes is one character, and an escaped backslash is no escape."""
    assert jsonrpc.loads(pair) == json.loads(pair)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [101, 5_000, 100_000])
def test_deep_json_is_refused_whole_or_not(opening: bytes, depth: int) -> None:
    """One level too many is refused, and so is depth that would exhaust the stack."""
    closing = b"]" if opening == b"[" else b"}"
    assert "deeper than 100 levels (DATAPROC_JSON_DEPTH)" in refused(opening * depth + b"1" + closing * depth).message


def test_the_deepest_json_allowed_is_read() -> None:
    """Exactly the limit is allowed; brackets in strings count for nothing."""
    assert isinstance(jsonrpc.parse(b"[" * 100 + b"]" * 100), Batch)
    assert jsonrpc.loads(json.dumps(["[{" * 500, [{}] * 200]).encode(), max_depth=3)


def test_a_broken_deep_body_is_a_parse_error_all_the_same() -> None:
    """Depth without an end is no crash."""
    assert refused(b"[" * 1_000_000).code == -32700


def test_an_answer_is_one_compact_object() -> None:
    """The response has the three members, and non-ASCII text as it is."""
    assert jsonrpc.answer("é", {"a": "ü"}) == '{"jsonrpc":"2.0","result":{"a":"ü"},"id":"é"}'.encode()


def test_a_result_that_is_json_already_is_spliced_in() -> None:
    """Encoded results are not read again."""
    assert jsonrpc.answer(1, Encoded(b'{"a":1.0}')) == b'{"jsonrpc":"2.0","result":{"a":1.0},"id":1}'


def test_a_file_name_in_another_encoding_can_be_answered() -> None:
    """A lone surrogate in a result becomes a question mark instead of a failure."""
    assert jsonrpc.dumps("a\udcff") == b'"a?"'


def test_nan_is_never_written() -> None:
    """A result that is no JSON is an error for the caller of `answer`, not a broken body."""
    with pytest.raises(ValueError, match="JSON"):
        jsonrpc.answer(1, float("nan"))


@pytest.mark.parametrize("error", [Overloaded("full", limit="queue", retry_after=1), InvalidParams.field("a", "bad")])
def test_a_refusal_carries_name_retryable_and_data(error: DataprocError) -> None:
    """An error's own members and those of the edge stand together in `data`."""
    told = json.loads(jsonrpc.refusal(7, error, request_id="r"))
    assert told["id"] == 7
    assert told["error"]["code"] == error.code
    assert told["error"]["data"] == {**error.data, "name": error.name, "retryable": error.retryable, "request_id": "r"}


def test_a_batch_of_answers_is_an_array() -> None:
    """Answers are joined, not parsed again."""
    assert json.loads(jsonrpc.join([b"1", b"2"])) == [1, 2]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No body raises anything but the two errors of the contract."""
    try:
        asked = jsonrpc.parse(body)
    except (ParseError, InvalidRequest):
        return
    assert isinstance(asked, Request | Rejected | Batch)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    """What the encoder writes, the parser gives back."""
    assert jsonrpc.loads(jsonrpc.dumps(value)) == value
