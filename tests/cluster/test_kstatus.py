"""kstatus says of each row of the table of conditions what docs/health.md promises."""

import subprocess

import pytest

from tests.cluster.kstatus import statuses
from tests.operator.status_examples import STATUS_EXAMPLES, WITHOUT_STATUS

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("example", [*STATUS_EXAMPLES, *WITHOUT_STATUS], ids=lambda one: one.name)
def test_kstatus_reads_the_conditions_of_each_phase(local_cluster, example):
    assert statuses(local_cluster.control_plane.built, [example.obj]) == [example.kstatus]


def test_an_object_that_is_being_deleted_is_terminating(local_cluster):
    obj = STATUS_EXAMPLES[0].obj
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert statuses(local_cluster.control_plane.built, [obj]) == ["Terminating"]


@pytest.mark.parametrize("given", ["{}", "[{}]", "no JSON"])
def test_what_is_no_list_of_objects_is_an_error(local_cluster, given):
    program = local_cluster.control_plane.built.program("kstatus")
    done = subprocess.run(
        [program], input=given, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kstatus: ")
