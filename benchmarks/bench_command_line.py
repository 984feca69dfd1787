"""How long the command line takes to say its help, beside Python and the libraries it avoids.

python -m benchmarks.bench_command_line
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "`python -c pass`": ["-c", "pass"],
    "`dwcp-ml --help`": ["-m", "dwcp_ml.cli", "--help"],
    "`dwcp-ml train --help`": ["-m", "dwcp_ml.cli", "train", "--help"],
    "`import pandas`": ["-c", "import pandas"],
    "`import kfp`": ["-c", "import kfp"],
    "`import tensorflow`": ["-c", "import tensorflow"],
}


def main() -> None:
    """Measure and print: the median of several runs, each case in turn."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(7):
        for name, words in CASES.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            times[name].append(time.perf_counter() - started)
    print("| what | median of 7, s |\n| --- | --- |")
    for name, measured in times.items():
        print(f"| {name} | {statistics.median(measured):.3f} |")


if __name__ == "__main__":
    main()
