import json
from pathlib import Path

from dwcp_ml.contract.columns import COLUMNS
from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.defects import CELL_DEFECTS, DEFECTS
from dwcp_ml.data.schema import markdown_table, training_schema

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "dwcp_ml" / "contract" / "dwcp_training_schema.json"
PAGE = ROOT / "docs" / "data-contract.md"


def test_the_committed_schema_is_what_the_contract_says():
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == training_schema(), "run `make golden`"


def test_the_page_lists_the_defects_that_there_are():
    page = PAGE.read_text(encoding="utf-8")
    for code, (verdict, meaning) in DEFECTS.items():
        assert f"| `{code}` | {verdict} | {meaning} |" in page, "run `make golden`"


def test_the_schema_holds_every_column_model_and_defect():
    schema = training_schema()
    assert list(schema["columns"]) == list(COLUMNS)
    assert schema["columns"]["packet_loss"]["maximum"] == 1.0
    assert schema["columns"]["link_type"]["needed_by"] == [
        "bandwidth_predictor",
        "compression_selector",
    ]
    assert schema["columns"]["region"]["needed_by"] == []
    assert schema["categorical_values"]["network_tier"] == {"tier1": 1, "tier2": 2, "tier3": 3}
    assert set(schema["target_variables"]) == set(MODELS)
    assert schema["incidents"]["fields"]["start"] == "optional"
    assert set(schema["data_quality"]["defects"]) == set(DEFECTS)
    assert set(CELL_DEFECTS) <= set(DEFECTS)


def test_the_table_has_a_row_for_every_column():
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(COLUMNS)
    who = "bandwidth, compression, reliability"
    assert f"| `rtt_ms` | float64 | ms, over 0 | round-trip time | {who} |" in lines
    assert any(line.startswith("| `timestamp`") and line.endswith("| all |") for line in lines)
    assert len({line.count("|") for line in lines}) == 1
