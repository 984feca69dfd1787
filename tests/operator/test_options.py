"""The options ``--allowed-…`` of the command, and the settings that they make."""

import click
import pytest

from dwcp_ml.cli.operator import _policy, run_command
from dwcp_ml.operator.policy import Policy

OPTIONS = {one.name: one for one in run_command.params if one.name.startswith("allowed_")}


def test_every_setting_has_an_option_with_its_default():
    assert {name.removeprefix("allowed_") for name in OPTIONS} == Policy.model_fields.keys()
    assert _policy({name: option.default for name, option in OPTIONS.items()}) == Policy()


def test_a_list_is_separated_by_commas():
    policy = _policy({"allowed_service_accounts": " a, b,,c "})
    assert policy.service_accounts == ("a", "b", "c")


def test_a_key_of_the_operator_is_a_wrong_option():
    with pytest.raises(click.UsageError, match="--allowed-metadata-keys"):
        _policy({"allowed_metadata_keys": "ml.dwcp.io/"})
