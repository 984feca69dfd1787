"""List and read objects of an S3 store, with nothing but the standard library.

Kubeflow keeps artifacts in a SeaweedFS that speaks S3, and neither this project nor its images hold
an S3 library. Two requests are enough here, both signed by AWS's Signature Version 4:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import datetime
import hashlib
import hmac
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree

REGION = "us-east-1"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without a proxy: the store is behind a port of this machine."""

_EMPTY = hashlib.sha256(b"").hexdigest()
_SECONDS = 60.0
_MAX_BYTES = 60_000_000
"""Bytes of one object; more than the largest file of a bundle."""


class StoreFailed(Exception):
    """The store does not respond, or rejects a request; one sentence."""


def signed(url, access_key, secret_key, now, headers=None):
    """Return the headers of a GET of ``url``.

    Parameters
    ----------
    url
        With its query in any order.
    now
        ``datetime`` in UTC.
    headers
        More headers that are to be signed.
    """
    parts = urllib.parse.urlsplit(url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    sent |= {name.lower(): value for name, value in (headers or {}).items()}
    names = ";".join(sorted(sent))
    query = "&".join(
        f"{_quoted(name)}={_quoted(value)}"
        for name, value in sorted(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    )
    lines = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent))
    request = "\n".join(["GET", parts.path or "/", query, lines, names, _EMPTY])
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={access_key}/{scope}"
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 {credential},SignedHeaders={names},Signature={signature}"
    )
    return sent


class Bucket:
    """The objects of one bucket.

    Parameters
    ----------
    endpoint
        ``http://host:port``.
    name
        Of the bucket.
    access_key, secret_key
        Of an account that may read it.
    """

    def __init__(self, endpoint, name, access_key, secret_key):
        self._base = f"{endpoint.rstrip('/')}/{name}"
        self._keys = (access_key, secret_key)

    def keys(self, prefix):
        """Yield the name of each object that begins with ``prefix``."""
        token = ""
        while True:
            parameters = {"list-type": "2", "prefix": prefix}
            parameters |= {"continuation-token": token} if token else {}
            query = "&".join(f"{name}={_quoted(value)}" for name, value in parameters.items())
            page = xml.etree.ElementTree.fromstring(self._get(f"{self._base}?{query}"))
            yield from (one.text or "" for one in page.iterfind("{*}Contents/{*}Key"))
            token = page.findtext("{*}NextContinuationToken") or ""
            if not token:
                return

    def read(self, key):
        """Return the content of an object."""
        return self._get(f"{self._base}/{_quoted(key, safe='/~')}")

    def _get(self, url):
        headers = signed(url, *self._keys, datetime.datetime.now(datetime.UTC))
        try:
            with _OPENER.open(
                urllib.request.Request(url, headers=headers), timeout=_SECONDS
            ) as response:
                content = response.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise StoreFailed(f"the object store rejects {url}: {error.code}.") from error
        except OSError as error:
            raise StoreFailed(f"the object store does not respond at {self._base}.") from error
        if len(content) > _MAX_BYTES:
            raise StoreFailed(
                f"{url} is larger than {_MAX_BYTES} bytes: that is no file of a bundle."
            )
        return content


def _quoted(text, safe="~"):
    return urllib.parse.quote(text, safe=safe)
