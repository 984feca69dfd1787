"""An HTTP proxy on loopback that connects every host name to one server of the test."""

import contextlib
import socket
import threading


class FakeProxy:
    """Keeps the head of the first request of each connection in ``heads``.

    Everything else is copied to ``upstream`` and back.
    """

    def __init__(self, upstream):
        self.upstream, self.heads = upstream, []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream):
        with stream, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.recv(1)
            self.heads.append(head.decode())
            with socket.create_connection(self.upstream, 10.0) as upstream:
                if head.startswith(b"CONNECT "):
                    stream.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    upstream.sendall(head)
                back = threading.Thread(target=_copy, args=(upstream, stream), daemon=True)
                back.start()
                _copy(stream, upstream)
                back.join(10.0)


def _copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
