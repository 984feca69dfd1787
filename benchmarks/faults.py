"""The operator's faults in full numbers: crashes, stale reads, other writers, two leaders.

python -m benchmarks.faults            all of them: about half an hour on one core
python -m benchmarks.faults -k stale   some, as pytest names them

Plain pytest tries a twentieth of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

TESTS = ("test_faults.py", "test_lease.py", "test_watching.py")


def main(words: list[str]) -> int:
    """Run them and say how long it took; return pytest's exit code."""
    started = time.monotonic()
    command = [
        sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", "--timeout", "3600",
        "--durations", "20", *(f"tests/operator/{name}" for name in TESTS), *words,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, env={**os.environ, "DWCP_FAULTS": "full"})
    print(f"{time.monotonic() - started:.0f} s")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
