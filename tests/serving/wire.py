"""Requests to send over a connection."""

import json

from tests.serving.bundles import rows_for
from tests.serving.running import plain

NAME = "reliability_detector"
PATH = f"/v1/models/{NAME}:predict"
BODY = json.dumps({"instances": rows_for(NAME, 1).astype(float).tolist()}).encode()


def request(number, body=BODY, form=plain):
    return form(PATH, body, headers=[("X-Request-Id", f"r{number}")])
