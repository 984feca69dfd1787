"""The table of the operator's benchmark has a column for each run."""

from benchmarks.bench_operator import lines
from tests.cluster.operator.scale import Measured

RUN = Measured(
    rollouts=1000, promoted=900, rolled_back=100, seconds=60.4, reconciliations=200,
    below={0.5: 190, 1.0: 198, float("inf"): 200}, writes=(13.7, 15), cpu_seconds=400.0,
    idle_cpu_percent=0.2, peak_mebibytes=140.0,
)  # fmt: skip


def test_each_run_has_a_column():
    head, rule, *rows = lines([(True, RUN), (False, RUN)])
    assert head == "| | 1,000, KServe real | 1,000, KServe simulated |"
    assert rule.count("---") == 3
    shown = [row.strip("| ").split(" | ")[1:] for row in rows]
    assert all(one == other for one, other in shown)
    assert [one for one, _ in shown] == [
        "900, 100", "60 s", "200", "1 s", "99.00 %", "13.7, 15", "400 ms", "0.2 %", "140 MiB",
    ]  # fmt: skip
