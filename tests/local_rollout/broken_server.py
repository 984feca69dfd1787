"""A fake: ``dwcp-ml serve`` with a fault on purpose.

    python broken_server.py FAULT SIZE [options of dwcp-ml serve]

``errors`` fails a share SIZE of the runs, ``slow`` takes SIZE seconds longer, ``once`` too, but
only if a row begins with 77, ``crash`` ends SIZE seconds after its first prediction, ``contract``
reports another contract.
Everything else is the real server.
"""

import os
import random
import sys
import threading
import time

from dwcp_ml.cli import main
from dwcp_ml.serving import served_model

FAULT, SIZE = sys.argv[1], float(sys.argv[2])
real = served_model.ServedModel.run
ending = []


def run(self, rows):
    if self.ready and FAULT == "errors" and random.random() < SIZE:
        raise RuntimeError("broken on purpose")
    begins = rows.reshape(len(rows), -1)[:, 0]
    if self.ready and (FAULT == "slow" or (FAULT == "once" and (begins == 77.0).any())):
        time.sleep(SIZE)
    if self.ready and FAULT == "crash" and not ending:
        ending.append(threading.Timer(SIZE, os._exit, args=(9,)))
        ending[0].start()
    return real(self, rows)


if __name__ == "__main__":
    served_model.ServedModel.run = run
    if FAULT == "contract":
        served_model.contract_digest = lambda manifest: "f" * 64
    sys.exit(main(["serve", *sys.argv[3:]]))
