"""The table of faults says what ran, what failed, and what was never tried."""

import pytest

from benchmarks import faults, reported_faults

REPORT = """<testsuites><testsuite>
<testcase classname="tests.cluster.operator.test_crashes" name="test_a_crash_x[promoted]">
  <properties><property name="tried" value="28"/></properties></testcase>
<testcase classname="tests.cluster.operator.test_crashes" name="test_a_crash_x[aborted]">
  <properties><property name="tried" value="20"/></properties>{crash}</testcase>
<testcase classname="tests.cluster.operator.test_finalizer" name="test_what_is_deleted_in_mid"/>
<testcase classname="tests.cluster.operator.test_finalizer" name="test_its_deletion_waits"/>
</testsuite></testsuites>"""
SUITE = "real API server"


@pytest.fixture
def page(tmp_path, monkeypatch):
    path = tmp_path / "faults.md"
    monkeypatch.setattr(faults, "TABLE", path)
    return path


def lines(tmp_path, crash=""):
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(crash=crash))
    return list(faults.table(SUITE, list(faults.cases(report))))


def test_what_was_tried_is_added_up_and_each_test_counts_for_one_row(tmp_path):
    crashes, deleted, others = lines(tmp_path)
    assert crashes.startswith("| 1 |")
    assert "| 48 |" in crashes
    assert "| holds |" in crashes
    assert "| 1 |" in deleted
    assert "| 1 |" in others


@pytest.mark.parametrize("what", ["failure", "error", "skipped"])
def test_what_did_not_pass_is_said(tmp_path, what):
    assert "**1 of 2 tests fail**" in lines(tmp_path, f"<{what}/>")[0]


def test_rows_that_did_not_run_stay_and_those_that_never_did_say_so(tmp_path, page):
    faults.rewrite([])
    assert page.read_text().count("**not tried yet**") == sum(map(len, faults.ROWS.values()))
    first = lines(tmp_path)
    faults.rewrite(first[:1])
    faults.rewrite(first[1:])
    text = page.read_text()
    assert all(line in text for line in first)
    faults.rewrite(lines(tmp_path, "<failure/>")[:1])
    assert first[0] not in page.read_text()
    assert first[1] in page.read_text()


@pytest.mark.parametrize("fault", reported_faults.FAULTS, ids=lambda fault: fault.trial[:30])
def test_every_reported_fault_names_tests_that_are_there(fault):
    for test in fault.tests:
        file, _, name = test.partition("::")
        text = (faults.ROOT / "tests" / file).read_text()
        assert f"def {name or 'test_'}" in text, test


def test_a_reported_fault_is_told_by_its_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(reported_faults, "TABLE", tmp_path / "page.md")
    fault = reported_faults.FAULTS[-1]
    name = reported_faults.prefix_of(fault.tests[0])
    good, bad = faults.Case(f"{name}a", 3, True), faults.Case(f"{name}b", 1, False)
    (line,) = reported_faults.table([good])
    assert "| 3 | holds |" in line
    (line,) = reported_faults.table([good, bad])
    assert "| 4 | **1 of 2 fail** |" in line
    reported_faults.rewrite([line])
    page = (tmp_path / "page.md").read_text()
    assert line in page
    assert page.count("**not tried yet**") == len(reported_faults.FAULTS) - 1
