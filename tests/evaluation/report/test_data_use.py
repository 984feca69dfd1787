"""The first table of a report: rows in, rows used, and what was lost to what."""

from dwcp_ml.contract.data_use import DataUse, DataWarning, DataWarningCode, LeftOut, LossCause
from dwcp_ml.evaluation import gate_model, model_html, model_markdown
from dwcp_ml.evaluation.report.data_use import data_use, data_warnings

USE = DataUse(
    rows=38_936,
    rows_used=34_000,
    merged_rows=36,
    examples=26_900,
    lost={LossCause.QUARANTINED: 2000, LossCause.GAP: 10_000},
    trained_examples=9000,
    left_out={LeftOut.ABNORMAL: 0, LeftOut.STRIDE: 18_000},
    warnings=(DataWarning(code=DataWarningCode.ROWS_LOST, message="Many rows are lost."),),
)


def report_of(records, use):
    training, *others = records("consensus_latency")
    return gate_model(training.replace(data_use=use), *others)


def test_the_table_says_what_was_lost_to_what(records):
    report = report_of(records, USE)
    assert data_use([report]).rows == (
        (
            "consensus_latency",
            "38,936 (36 merged with a peer's)",
            "34,000",
            "26,900",
            "30.8 %",
            "2,000 quarantined, 10,000 after a gap",
            "9,000; not on 18,000 between strides",
        ),
    )
    assert data_warnings([report]) == ("Many rows are lost.",)


def test_the_table_says_that_a_stream_of_all_rows_was_trained_on(records):
    use = USE.replace(trained_examples=1_000_000, streamed_examples=34_000_000, left_out={})
    row = data_use([report_of(records, use)]).rows[0]
    assert row[-1] == "1,000,000 of 34,000,000 in a stream of all rows"


def test_it_is_the_first_table_of_a_report(records):
    report = report_of(records, USE)
    text = model_markdown(report)
    assert text.index("10,000 after a gap") < text.index("On the test split")
    page = model_html(report)
    assert page.index("10,000 after a gap") < page.index('class="gauges"')


def test_an_older_record_has_none(records):
    report = report_of(records, None)
    assert data_use([report]) is None
    assert "Use of the data" not in model_markdown(report)
