"""A fake of S3: moto's server, which implements the API in memory, on the loopback.

It checks no signature and knows no permissions. It does know conditional writes.
"""

import contextlib
import itertools
from unittest import mock

NUMBERS = itertools.count()


@contextlib.contextmanager
def running():
    """Yield the endpoint of a server."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def environment(endpoint):
    """Return the variables that a pod gets from a secret of S3."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


class Bucket:
    """A new bucket, and what is in it, by a client that is not ours."""

    def __init__(self, endpoint):
        import boto3

        self.name = f"bucket-{next(NUMBERS)}"
        self.endpoint = endpoint
        with mock.patch.dict("os.environ", environment(endpoint)):
            self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=self.name)

    def environment(self):
        return environment(self.endpoint)

    def address(self, key):
        return f"s3://{self.name}/{key}"

    def put(self, key, content):
        self.client.put_object(Bucket=self.name, Key=key, Body=content)
        return self.address(key)

    def get(self, key):
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def remove(self, key):
        self.client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix=""):
        page = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)
        return [found["Key"] for found in page.get("Contents", ())]
