"""What the server says to a request that it does not answer."""

import json

import pytest

from dwcp_ml.serving import refusals
from dwcp_ml.serving.exchange import Answer, Target, request_id_of


@pytest.mark.parametrize(
    ("kind", "status"),
    [("BadInput", 400), ("NotServed", 404), ("TooLarge", 413), ("Unavailable", 503),
     ("Failed", 500)],
)  # fmt: skip
def test_a_refusal_is_a_status_and_a_sentence(kind, status):
    refused = getattr(refusals, kind)("no: “this”.")
    told = Answer.refusal(refused)
    assert told.status == status
    assert json.loads(told.body) == {"error": "no: “this”."}
    assert told.kind == "application/json"
    assert told.headers == ((("retry-after", "1"),) if status == 503 else ())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("short", "short"), ("a\nb\x1b\x00", "a?b??"), ("k" * 61, "k" * 57 + "..."),
     ("k" * 60, "k" * 60), (None, "a NoneType"), ([["x"]], "a list")],
)  # fmt: skip
def test_what_a_client_sent_is_short_and_printable(text, shown):
    assert refusals.shorten(text) == shown


@pytest.mark.parametrize("given", ["a", "~!" * 64, "0af3-4"])
def test_a_request_id_is_kept(given):
    assert request_id_of(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "a\r\nb", "ü", "x" * 129, "\x7f"])
def test_a_request_id_that_is_none_is_made(given):
    made = request_id_of(given)
    assert made != given
    assert len(made) == 32
    assert made != request_id_of(given)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models/m:predict", Target(1, "m", None)),
        ("/v1/models/m/versions/7:predict", Target(1, "m", "7")),
        ("/v2/models/m/infer", Target(2, "m", None)),
        ("/v2/models/m/versions/7/infer", Target(2, "m", "7")),
        ("/v1/models/m", None),
        ("/v1/models/m:explain", None),
        ("/v1/models/:predict", None),
        ("/v1/models/m:predict/", None),
        ("/v2/models/m/infer/x", None),
        ("/v2/models//infer", None),
        ("x/v2/models/m/infer", None),
    ],
)
def test_where_an_inference_is_asked_for(path, target):
    assert Target.of(path) == target
