"""Evaluate models against baselines and a ceiling, write the reports, and gate the run."""

from dwcp_ml.evaluation.evaluate import evaluate, nothing_to_evaluate
from dwcp_ml.evaluation.gate import gate_model, gate_session
from dwcp_ml.evaluation.plot_data import PlotData
from dwcp_ml.evaluation.report.data_use import data_use, data_warnings
from dwcp_ml.evaluation.report.markdown import model_markdown, session_markdown
from dwcp_ml.evaluation.report.pages import model_html, session_html
from dwcp_ml.evaluation.report.tables import summary_table

__all__ = [
    "PlotData",
    "data_use",
    "data_warnings",
    "evaluate",
    "gate_model",
    "gate_session",
    "model_html",
    "model_markdown",
    "nothing_to_evaluate",
    "session_html",
    "session_markdown",
    "summary_table",
]
