"""A named fake: ``dwcp-ml serve`` with a fault on purpose.

    python broken_server.py FAULT [options of dwcp-ml serve]

``errors`` fails a share of the runs, ``slow`` takes three times the time, ``crash`` ends three
seconds after its first answer. Everything else is the real server.
"""

import os
import random
import sys
import threading
import time

from dwcp_ml.cli import main
from dwcp_ml.serving import served_model

FAULT = sys.argv[1]
real = served_model.ServedModel.run
ending = []


def run(self, rows):
    if self.ready and FAULT == "errors" and random.random() < 0.1:
        raise RuntimeError("broken on purpose")
    if self.ready and FAULT == "slow":
        time.sleep(0.02)
    if self.ready and FAULT == "crash" and not ending:
        ending.append(threading.Timer(3.0, os._exit, args=(9,)))
        ending[0].start()
    return real(self, rows)


if __name__ == "__main__":
    served_model.ServedModel.run = run
    sys.exit(main(["serve", *sys.argv[2:]]))
