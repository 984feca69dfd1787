"""Argo CD's way to run a health check: Lua 5.1, only the basic and table libraries, ``obj`` set."""

from pathlib import Path

import yaml
from lupa import lua51

CHECKS = Path(__file__).parents[2] / "manifests/argocd/health-checks.yaml"
STATUSES = {"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"}
_PREFIX = "resource.customizations.health.ml.dwcp.io_"
_NOT_THERE = ("io", "os", "string", "math", "debug", "package", "require", "dofile", "loadfile")


def scripts(config_map=None):
    """Return kind -> script of Argo CD's ConfigMap; by default of the patch that we ship."""
    data = (config_map or yaml.safe_load(CHECKS.read_text()))["data"]
    return {key.removeprefix(_PREFIX): text for key, text in data.items()
            if key.startswith(_PREFIX)}  # fmt: skip


def health(obj, script):
    """Return (status, message) of an object."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    names = lua.globals()
    for name in (*_NOT_THERE, "python"):
        names[name] = None
    names.obj = lua.table_from(obj, recursive=True)
    answer = lua.execute(script)
    assert answer.status in STATUSES, answer.status
    return answer.status, answer.message
