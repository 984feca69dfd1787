"""The reports as Markdown, for a terminal, a pull request or the page of a run in Kubeflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.records import ModelReport, SessionReport
from dwcp_ml.evaluation.report import tables
from dwcp_ml.evaluation.report.comparisons import champion, comparisons, references
from dwcp_ml.evaluation.report.data_use import data_use, data_warnings
from dwcp_ml.evaluation.report.diagnostics import diagnostics
from dwcp_ml.evaluation.report.leaks import leaks
from dwcp_ml.evaluation.report.tables import Table


def model_markdown(report: ModelReport) -> str:
    """Return the report of one model as Markdown, the verdict first."""
    evaluation = report.evaluation
    parts = [
        f"# {text(report.model_name)} {text(report.version)}: {text(tables.verdict(report))}",
        _bullets(report.reasons) or tables.approval(report),
        _bullets(tables.findings(report)),
    ]
    use = data_use([report])
    parts += ["## Use of the data", table(use)] if use else []
    if evaluation.success:
        parts += [
            "## On the test split",
            table(tables.numbers(evaluation)),
            "## Comparisons with the references",
            table(comparisons(evaluation)),
            "## Metrics of the references",
            table(references(evaluation)),
        ]
    against = champion(evaluation)
    parts += ["## Against the champion", table(against)] if against else []
    for title, content in diagnostics(evaluation):
        parts += [f"## {title}", table(content)]
    parts += ["## Notes", _bullets(evaluation.notes)] if evaluation.notes else []
    if report.export.formats or report.export.parity:
        parts += ["## Exports", table(tables.exports(report.export))]
    folds = tables.cross_validation(evaluation)
    parts += ["## Cross-validation", table(folds)] if folds else []
    parts += ["## Training", table(tables.training_facts(report))]
    parts += ["## Data", table(tables.data_facts(report.data))]
    defects = tables.defects(report.data)
    parts += ["### Defects", table(defects)] if defects else []
    found = leaks({report.model_name: evaluation.leaks})
    parts += ["### Leaks", table(found)] if found else []
    parts += ["## Hyperparameters", _code(tables.hyperparameters(report))]
    parts += ["## Libraries", text(tables.libraries(report))] if report.training.libraries else []
    return _joined(parts)


def session_markdown(session: SessionReport) -> str:
    """Return the report of one run as Markdown, with links to its models' reports."""
    verdict = session.production_readiness.deployment_recommendation
    parts = [
        f"# Run {text(session.training_session)}: {verdict}",
        text(f"{tables.headline(session)} {tables.unchecked(session)}"),
        *_use_of_data(session),
        table(tables.summary_table(session)),
        "## Reasons" if session.reasons else "",
        _bullets(session.reasons),
        _bullets([f"{name}: {words}" for name, words in _findings_and_cautions(session)]),
        "## Checks of the run",
        table(tables.readiness(session)),
        "## Models",
        _bullets_raw(
            f"[{text(name)}]({model_link(report)}): {text(tables.verdict(report))}"
            for name, report in session.models.items()
        ),
        "## Data",
        table(tables.data_facts(session.data)),
    ]
    defects = tables.defects(session.data)
    parts += ["### Defects", table(defects)] if defects else []
    return _joined(parts)


def _use_of_data(session: SessionReport) -> list[str]:
    use = data_use(session.models.values())
    return [table(use), _bullets(data_warnings(session.models.values()))] if use else []


def _findings_and_cautions(session: SessionReport) -> list[tuple[str, str]]:
    pairs = (
        (name, words)
        for name, each in session.models.items()
        for words in (*tables.findings(each), tables.caution(each.evaluation))
    )
    return [(name, words) for name, words in pairs if words]


def model_link(report: ModelReport, name: str = REPORT_NAMES[1]) -> str:
    """Return the path of a model's report, relative to the report of its run."""
    return f"models/{report.model_name}/{report.version}/{name}"


def table(content: Table) -> str:
    """Return a table as Markdown, its caption below."""
    lines = [_row(content.header), _row(["---"] * len(content.header))]
    lines += [_row([text(cell) for cell in row]) for row in content.rows]
    caption = f"\n\n{text(content.caption)}" if content.caption else ""
    return "\n".join(lines) + caption


def text(value: str) -> str:
    r"""Return text with its Markdown and HTML escaped, in one line.

    >>> print(text("a|b <script>"))
    a\|b \<script\>
    """
    escaped = "".join(f"\\{letter}" if letter in "\\`*[]<>|" else letter for letter in value)
    # An underscore inside a word is no markup; at its edge it would be.
    return " ".join(escaped.split())


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bullets(sentences: Sequence[str]) -> str:
    return _bullets_raw(text(sentence) for sentence in sentences)


def _bullets_raw(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(content: str) -> str:
    fence = "```"
    while fence in content:
        fence += "`"
    return f"{fence}json\n{content}\n{fence}"


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
