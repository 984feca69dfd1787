"""The commands that make keys, sign and verify."""

import json

import click
import pytest

from dwcp_ml.cli.bundle import group
from dwcp_ml.contract.bundle import SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.export.keys import PRIVATE_KEY_NAME
from dwcp_ml.export.verify import bundle_digest
from tests.errors import about


def run(*words):
    return group.main([str(word) for word in words], standalone_mode=False)


def test_the_commands_in_a_row(finalized, tmp_path, capsys):
    run("keygen", "--output-dir", tmp_path / "keys", "--json")
    made = json.loads(capsys.readouterr().out)
    run("sign", finalized, "--private-key", made["private_key"])
    assert bundle_digest(finalized) in capsys.readouterr().out
    words = (
        "verify",
        finalized,
        "--public-key",
        made["public_key"],
        "--digest",
        bundle_digest(finalized),
    )
    run(*words, "--not-before", "2026-01-02", "--strict-location", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "name": "reliability_detector",
        "version": "7",
        "training_date": "2026-01-02T03:04:05+00:00",
        "digest": bundle_digest(finalized),
        "signature": "valid",
    }
    run("verify", finalized)
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [
        "name", "version", "training", "digest", "signature",
    ]  # fmt: skip
    assert out.splitlines()[-1].split() == ["signature", "unchecked"]
    with pytest.raises(BundleRefused, check=about(ErrorCode.TOO_OLD)):
        run(*words, "--not-before", "2026-01-02T03:04:06Z")
    with pytest.raises(UsageError, check=about(ErrorCode.ALREADY_EXISTS, "keys")):
        run("keygen", "--output-dir", tmp_path / "keys")


def test_the_text_output_of_keygen_and_sign(finalized, tmp_path, capsys):
    run("keygen", "--output-dir", tmp_path / "keys")
    assert "keep it secret" in capsys.readouterr().out
    run("sign", finalized, "--private-key", tmp_path / "keys" / PRIVATE_KEY_NAME, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "signature_file": str(finalized / SIGNATURE_NAME),
        "digest": bundle_digest(finalized),
    }


@pytest.mark.parametrize("date", ["tomorrow", "2026-13-01", ""])
def test_a_date_that_is_none(finalized, date):
    with pytest.raises(click.BadParameter, match="not a date such as 2026-01-31"):
        run("verify", finalized, "--not-before", date)
