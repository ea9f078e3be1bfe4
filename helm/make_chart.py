"""Makes what in the chart follows from elsewhere: its copies of crds/, and docs/values.md from its schema and defaults.

`make chart` runs it; tests/cluster/test_chart.py fails where it was forgotten.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "halvard"
COPIES = CHART / "files" / "crds"
PAGE = ROOT / "docs" / "values.md"
HEAD = """\
# The chart's values

Made by `make chart` from `values.schema.json` and `values.yaml` of the chart. What the schema does not allow is
refused, with its name, before anything is installed.

| value | default | meaning |
|---|---|---|
"""


def leaves(schema: Mapping[str, Any], default: Any, name: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yields name, default and description of every value that has no parts with a description of their own."""
    parts = {key: part for key, part in schema.get("properties", {}).items() if "description" in part}
    for key, part in parts.items():
        yield from leaves(part, (default or {}).get(key), f"{name}.{key}" if name else key)
    if not parts:
        yield name, default, schema["description"]


def values_page() -> str:
    """Returns docs/values.md."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [
        f"| `{name}` | `{json.dumps(default)}` | {description} |\n"
        for name, default, description in leaves(schema, defaults)
        if name != "global"  # Helm's own
    ]
    return HEAD + "".join(rows)


def main() -> None:
    """Writes them."""
    shutil.rmtree(COPIES, ignore_errors=True)
    shutil.copytree(ROOT / "crds", COPIES)
    PAGE.write_text(values_page())


if __name__ == "__main__":
    main()
