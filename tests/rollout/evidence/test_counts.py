from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.rollout.evidence.error_rate import WINDOW_REQUESTS, Counts, WorstWindow


def gathered(*counts):
    worst = WorstWindow()
    for requests, errors in counts:
        worst = worst.update(Counts(requests=requests, errors=errors))
    return worst


def test_a_stretch_counts_once_it_is_long_enough():
    assert gathered((WINDOW_REQUESTS - 1, 500)).rate == 0.0
    assert gathered((WINDOW_REQUESTS - 1, 500), (1, 0)).rate == 0.5
    assert gathered((400, 40), (600, 0), (1000, 20)).rate == 0.04


def test_the_worst_stays():
    assert gathered((1000, 200), (1000, 0), (2000, 100)).rate == 0.2


def test_no_requests_change_nothing():
    worst = gathered((10, 1))
    assert worst.update(Counts()) is worst


@given(
    st.lists(
        st.integers(0, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
        max_size=30,
    )
)
def test_it_is_a_rate_and_small(counts):
    worst = gathered(*counts)
    assert 0.0 <= worst.rate <= 1.0
    assert worst.open.requests < WINDOW_REQUESTS
    assert WorstWindow.model_validate_json(worst.to_json()) == worst
