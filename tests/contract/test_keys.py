"""One normal form of a node's name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.keys import key_of, link_of


@pytest.mark.parametrize(
    ("name", "normal"),
    [
        ("60", "60"), ("60.0", "60"), ("60.", "60"), (" 60 ", "60"), ("\u00a060.00\t", "60"),
        ("-3.0", "-3"), ("1e+16", "10000000000000000"), ("1.25e+16", "12500000000000000"),
        ("n-1", "n-1"), ("n-1.0", "n-1.0"), ("0.5", "0.5"), ("1.0.0", "1.0.0"), ("12e4", "12e4"),
        ("\u00b2.0", "\u00b2.0"),
        ("zu\u0308rich", "zürich"), ("東京", "東京"), ("  ", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_normal_form(name, normal):
    assert key_of(name) == normal


def test_a_link_has_the_normal_form_of_its_nodes():
    assert [link_of(name) for name in ("1.0/2.0", " 1 / 2 ", "1", "rack/1.0/2")] == [
        "1/2", "1/2", "1", "rack/1/2",
    ]  # fmt: skip


@given(st.text(max_size=8) | st.floats().map(str) | st.integers().map(str))
def test_a_normal_form_is_its_own(name):
    assert key_of(key_of(name)) == key_of(name)
    assert link_of(link_of(name)) == link_of(name)


@given(st.integers(0, 2**53))
def test_a_number_is_one_node_as_integer_and_as_float(number):
    assert key_of(str(float(number))) == key_of(str(number)) == str(number)
