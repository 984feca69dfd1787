"""The table of the defects that validation finds."""

from __future__ import annotations

from typing import Final

from dwcp_ml.data.defects import DEFECTS

BEGIN: Final = "<!-- defects: generated -->"
END: Final = "<!-- end of defects -->"


def with_table(page: str) -> str:
    """Return a page with the table of defects between its two markers updated."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = ["| code | verdict | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{code}` | {verdict} | {what} |" for code, (verdict, what) in DEFECTS.items()]
    table = "\n".join(lines)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
