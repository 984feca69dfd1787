"""Memory stays flat as the file grows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, resource, sys
from pathlib import Path
from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.validation import validate
report = validate(Path(sys.argv[1]), specs=list(MODELS.values()), output=Path(sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": report.rows, "peak_mb": peak, "codes": [d.code for d in report.defects]}))
"""


def run(path, output):
    command = [sys.executable, "-c", PROGRAM, str(path), str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def grow(path, frame, days):
    """Write the rows of ``frame`` again for each day, in the order of time."""
    import pandas as pd

    with path.open("w") as file:
        for day in range(days):
            moved = frame.assign(timestamp=frame["timestamp"] + pd.Timedelta(days=day))
            moved.to_csv(file, index=False, header=day == 0)


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [True, False], ids=["in order", "out of order"])
def test_ten_times_the_file_takes_the_same_memory(make, tmp_path, ordered):
    frame = make(links=40, steps=500)
    if not ordered:
        frame = frame.sample(frac=1, random_state=0)
    results = {}
    for days in (2, 20):
        path = tmp_path / f"{days}.csv"
        grow(path, frame, days)
        results[days] = run(path, tmp_path / f"out-{days}")
        path.unlink()
    assert results[20]["rows"] == 10 * results[2]["rows"] == 400_000
    assert ("out_of_order" in results[20]["codes"]) == (not ordered)
    # The allocators of Arrow and of the system keep what a few more blocks in flight took.
    assert results[20]["peak_mb"] < results[2]["peak_mb"] + (30 if ordered else 80)
    assert Path(tmp_path / "out-20" / "telemetry.parquet").stat().st_size > 10_000_000
