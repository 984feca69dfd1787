"""Rejections: status, body, and what of a request they repeat."""

import json

import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving import rejections
from dwcp_ml.serving.headers import link_header, link_of, request_id_of
from dwcp_ml.serving.http_routes import HttpResponse, Target, target_of
from tests.errors import about


@pytest.mark.parametrize(
    ("name", "status"),
    [("BadInput", 400), ("ModelNotFound", 404), ("TooLarge", 413), ("ModelUnavailable", 503),
     ("ModelFailed", 500)],
)  # fmt: skip
def test_a_rejection_is_a_status_and_a_sentence(name, status):
    rejected = getattr(rejections, name)("no: “this”.")
    received = HttpResponse.of_rejection(rejected)
    assert received.status == status
    assert json.loads(received.body) == {"error": "no: “this”."}
    assert received.content_type == "application/json"
    assert received.headers == ((("retry-after", "1"),) if status == 503 else ())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("short", "short"), ("a\nb\x1b\x00", "a?b??"), ("k" * 61, "k" * 57 + "..."),
     ("k" * 60, "k" * 60), (None, "a NoneType"), ([["x"]], "a list")],
)  # fmt: skip
def test_text_of_a_client_is_shortened_and_printable(text, shown):
    assert rejections.shorten(text) == shown


@pytest.mark.parametrize("given", ["a", "~!" * 64, "0af3-4"])
def test_a_request_id_is_kept(given):
    assert request_id_of(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "a\r\nb", "ü", "x" * 129, "\x7f"])
def test_a_request_id_that_is_invalid_is_replaced(given):
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
def test_the_target_of_a_path(path, target):
    assert target_of(path) == target


@pytest.mark.parametrize(
    ("sent", "link"),
    [
        (None, None),
        ("", ""),
        ("n1/n2", "n1/n2"),
        ("z%C3%BCrich/%E6%9D%B1%E4%BA%AC", "zürich/東京"),
        ("50%25", "50%"),
        ("50%", "50%"),
        ("a%2Fb", "a/b"),
    ],
)
def test_a_link_is_percent_encoded(sent, link):
    assert link_of(sent) == link


@pytest.mark.parametrize("link", ["n1/n2", "zürich/東京", "50%", "a b/c", "%41", "\x7f"])
def test_a_link_is_read_as_it_was_written(link):
    written = link_header(link)
    assert written.isascii()
    assert written.isprintable()
    assert link_of(written) == link


@pytest.mark.parametrize("sent", ["zürich", "z%FCrich", "%ED%A0%80"])
def test_a_link_that_is_not_utf8_is_rejected(sent):
    with pytest.raises(rejections.BadInput, check=about(ErrorCode.MALFORMED, "X-DWCP-Link")):
        link_of(sent)
