"""A fake transport, and requests to send over it."""

import asyncio
import json

from tests.serving.bundles import rows_for
from tests.serving.running import plain, split

NAME = "reliability_detector"
PATH = f"/v1/models/{NAME}:predict"
BODY = json.dumps({"instances": rows_for(NAME, 1).astype(float).tolist()}).encode()


class Transport(asyncio.Transport):
    """Records what is written, and whether reading is paused."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.paused = self.closed = self.aborted = False

    def write(self, data):
        assert not self.closed, "written after the connection was closed"
        self.written += data

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = self.aborted = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        assert not self.closed
        self.paused = True

    def resume_reading(self):
        assert not self.closed
        self.paused = False

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    @property
    def responses(self):
        return split(self.written)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def turns(number=20):
    for _ in range(number):
        await asyncio.sleep(0)


def request(number, body=BODY, form=plain):
    return form(PATH, body, headers=[("X-Request-Id", f"r{number}")])
