"""``docs/reference/configuration.md``: every setting that is read from a file or a variable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click
import yaml
from pydantic import BaseModel

from docs.generators.fields import ABSENT, Row, line, number, phrase, rows_of, shown, table
from docs.generators.variables import VARIABLES

INTRODUCTION: Final = """\
# Configuration

Every key of the settings files and every environment variable, with its default. [The command
line](command-line.md) lists the options of commands, and [the custom
resources](../custom-resources.md#every-field) the fields of ModelRollout and TrainingRun. An
unknown key is rejected with the most similar known one, and a value outside its bounds is rejected.
Dots separate sections: `data.window` is the key `window` of the section `data`.
"""

MODELS: Final = """\
## The models

Each model has a YAML file with its defaults next to its code in `dwcp_ml/models/`. To change
settings, write a file that maps models to sections, and pass it as `dwcp-ml train --config FILE`:

```yaml
bandwidth_predictor:
  training: {epochs: 40}
  data: {window: 20}
```

On Kubeflow, pass the same settings in the pipeline's argument `model_options`
(`{"bandwidth_predictor": {"settings": {"training": {"epochs": 40}}}}`); in a TrainingRun, in
`spec.modelOptions[].settings`.
"""

SIMULATOR: Final = """\
## The simulator

Set by `dwcp-ml data simulate --set days=2 --set nodes=4`, and by the same option of `dwcp-ml train`
and `dwcp-ml pipeline run`. [The simulator](../simulator.md) explains the defaults.
"""

ROLLOUT: Final = """\
## A rollout on one machine

The keys of the file for `dwcp-ml rollout run --spec FILE`, `rollout ready` and `rollout simulate`.
`null` turns a test off. A ModelRollout has the same settings in camel case.
"""

RESOURCES: Final = """\
## The tasks of the pipeline

The keys of `pipelines/resources.yaml`, or of the file for `dwcp-ml pipeline compile --resources
FILE`. The section `defaults` applies to every task; the section `tasks` overrides it for a task.
"""

ARGUMENTS: Final = """\
## The pipeline's arguments

Set by `dwcp-ml pipeline submit --argument NAME=VALUE`, by a TrainingRun, or in Kubeflow's user
interface.
"""

MODEL_OPTIONS: Final = """\
`model_options` maps the full name of a model to a section with these keys:
"""

OPERATOR: Final = """\
## The operator

Options of `dwcp-ml operator run`, each with its environment variable. In the variable of a
repeatable option, separate paths by `:` and other values by spaces. `manifests/base/operator.yaml`
sets the options as arguments of the container.
"""

INTERVALS: Final = """\
Constants that no option changes:
"""

SERVER: Final = """\
## The model server

The model server has [options](command-line.md#dwcp-ml-serve) only; it reads no settings file and no
environment variable. It has these limits; the first two have an option:
"""

SUBMIT: Final = """\
## Submitting to Kubeflow

`dwcp-ml pipeline submit`:
"""

OTHERS: Final = """\
## Other environment variables
"""


def page() -> str:
    """Return the page, without the line that says that it is generated."""
    parts = [INTRODUCTION, *_models(), *_simulator(), *_rollout(), *_resources(), *_arguments()]
    parts += [*_operator(), *_server(), *_submit(), OTHERS, _variables()]
    return "\n".join(parts)


def _models() -> Iterator[str]:
    from dwcp_ml.contract.models import MODELS as MODEL_SPECS
    from dwcp_ml.models.bandwidth_predictor import BandwidthPredictorSettings
    from dwcp_ml.models.compression_selector import CompressionSelectorSettings
    from dwcp_ml.models.consensus_latency import ConsensusLatencySettings
    from dwcp_ml.models.registry import create
    from dwcp_ml.models.reliability_detector import ReliabilityDetectorSettings
    from dwcp_ml.models.settings import read_yaml

    yield MODELS
    kinds: dict[str, type[BaseModel]] = {
        "bandwidth_predictor": BandwidthPredictorSettings,
        "compression_selector": CompressionSelectorSettings,
        "reliability_detector": ReliabilityDetectorSettings,
        "consensus_latency": ConsensusLatencySettings,
    }
    for name, kind in kinds.items():
        defaults = read_yaml(type(create(name)).defaults)  # type: ignore[attr-defined]
        forms = " or ".join(f"`{form.name}`" for form in MODEL_SPECS[name].forms)
        rows = rows_of(kind, defaults)
        told = (row._replace(type=forms) if row.key == "form" else row for row in rows)
        yield f"### {name}\n\n{table(told)}\n"


def _simulator() -> Iterator[str]:
    from dwcp_ml.simulate.settings import SimulatorSettings

    yield SIMULATOR
    yield table(rows_of(SimulatorSettings)) + "\n"


def _rollout() -> Iterator[str]:
    from dwcp_ml.rollout.spec import DEFAULT_STEPS, RolloutSpec

    yield ROLLOUT
    told = ("steps", "watch_seconds", "analysis")
    rows = [row for row in rows_of(RolloutSpec) if row.key.split(".")[0].split("[")[0] in told]
    shares = ", ".join(f"{step.traffic_percent} %" for step in DEFAULT_STEPS)
    steps = Row("steps", "list", ABSENT, f"shares that rise to 100; by default {shares}")
    yield table(steps if row.key == "steps" else row for row in rows) + "\n"


def _resources() -> Iterator[str]:
    from pipelines.resources import FILE, TaskSettings

    yield RESOURCES
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    yield table(rows_of(TaskSettings, content["defaults"])) + "\n"
    yield "| task | what it has of its own |\n| --- | --- |"
    for name, own in content["tasks"].items():
        told = ", ".join(f"`{key}` {shown(value)}" for key, value in _flat(own))
        yield f"| `{name}` | {told} |"
    yield ""


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _arguments() -> Iterator[str]:
    from dwcp_ml.training_run.options import ModelOptions, RunOptions
    from pipelines.training import COMPILED

    types = {
        "STRING": "text", "BOOLEAN": "`true` or `false`", "NUMBER_INTEGER": "integer",
        "NUMBER_DOUBLE": "number", "STRUCT": "map",
    }  # fmt: skip
    yield ARGUMENTS
    compiled = next(yaml.safe_load_all(COMPILED.read_text(encoding="utf-8")))
    rows = []
    for name, one in compiled["root"]["inputDefinitions"]["parameters"].items():
        kind, default = types[one["parameterType"]], one["defaultValue"]
        whole = int(default) if kind == "integer" else default
        rows.append(Row(name, kind, whole, RunOptions.model_fields[name].description or ""))
    yield table(rows) + "\n"
    yield MODEL_OPTIONS
    yield table(rows_of(ModelOptions)) + "\n"


def _operator() -> Iterator[str]:
    from dwcp_ml.cli.operator import run_command
    from dwcp_ml.operator.settings import Intervals, OperatorSettings

    yield OPERATOR
    meanings = {row.key: row for row in rows_of(OperatorSettings)}
    # `intervals.reconcile_seconds` of the settings is `--reconcile-interval` of the command.
    by_name = {key.rpartition(".")[2]: row for key, row in meanings.items()}
    by_name |= {
        f"allowed_{key.rpartition('.')[2]}": row
        for key, row in meanings.items()
        if key.startswith("policy.")
    }
    yield _options(run_command, by_name) + "\n"
    yield INTERVALS
    options = {one.name for one in run_command.params}
    yield table(row for row in rows_of(Intervals) if row.key not in options) + "\n"


_TYPES: Final = {"int": "integer", "float": "number"}


def _server() -> Iterator[str]:
    from dwcp_ml.serving.limits import Limits

    yield SERVER
    meanings = _parameters(Limits.__doc__ or "")
    rows = [
        Row(field.name, _TYPES[field.type], field.default, phrase(meanings[field.name]))
        for field in fields(Limits)
    ]
    yield table(rows) + "\n"


def _parameters(docstring: str) -> dict[str, str]:
    """Return the parameters of a numpydoc docstring: name -> what it says."""
    found: dict[str, str] = {}
    name = ""
    for text in docstring.partition("----------\n")[2].splitlines():
        if text.startswith(" " * 8):
            found[name] = f"{found.get(name, '')} {text.strip()}".strip()
        else:
            name = text.strip()
    return found


def _submit() -> Iterator[str]:
    from dwcp_ml.cli.submit import command

    yield SUBMIT
    yield _options(command, {}) + "\n"


def _options(command: click.Command, told: Mapping[str, Row]) -> str:
    """Return the options of a command whose variables begin with DWCP_."""
    prefix = command.context_settings["auto_envvar_prefix"]
    lines = ["| option | variable | type | default | meaning |", "|" + " --- |" * 5]
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        row = told.get(option.name or "")
        default = "needed" if option.required else _default(option)
        cells = (
            f"`{option.opts[0]}`", f"`{prefix}_{(option.name or '').upper()}`", _kind(option),
            default, row.meaning if row else phrase(option.help or ""),
        )  # fmt: skip
        lines.append(line(cells))
    return "\n".join(lines)


def _kind(option: click.Option) -> str:
    kind = option.type
    if isinstance(kind, click.Choice):
        return " or ".join(f"`{one}`" for one in kind.choices)
    if isinstance(kind, click.types._NumberRangeBase):
        low = "" if kind.min is None else f" {'>' if kind.min_open else '≥'} {number(kind.min)}"
        high = "" if kind.max is None else f", {'<' if kind.max_open else '≤'} {number(kind.max)}"
        return ("integer" if isinstance(kind, click.IntRange) else "number") + low + high
    names = {"text": "text", "path": "path", "boolean": "`true` or `false`"}
    return names.get(kind.name, kind.name) + (", several" if option.multiple else "")


def _default(option: click.Option) -> str:
    if option.is_flag:
        return "`false`"
    value = option.default
    if option.multiple or value is None or callable(value) or type(value).__name__ == "Sentinel":
        return ""
    return "" if value == "" else shown(str(value) if isinstance(value, Path) else value)


def _variables() -> str:
    lines = ["| variable | read by | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{one.name}` | {one.who} | {one.meaning} |" for one in VARIABLES]
    return "\n".join(lines) + "\n"
