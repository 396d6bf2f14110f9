"""Write Vega's JavaScript, which pages carry inline, as vl-convert packs it: cnnbench/page/vega.js and vega.json.

    python .ci/vega.py

Pages are written without vl-convert: it holds V8, which reserves more address space than `ulimit -v` often leaves.
tests/page/test_vega.py holds the files to this script. The licences are in cnnbench/page/vega_licences.txt.
"""

import hashlib
import importlib.metadata
import json
from pathlib import Path

import vl_convert

FOLDER = Path(__file__).parent.parent / "cnnbench" / "page"


def main() -> None:
    """Write both files."""
    script = vl_convert.javascript_bundle()
    origin = {
        "vega": vl_convert.get_vega_version(),
        "vega-lite": vl_convert.get_vegalite_versions()[-1],
        "vega-embed": vl_convert.get_vega_embed_version(),
        "vl-convert-python": importlib.metadata.version("vl-convert-python"),
        "sha256": hashlib.sha256(script.encode()).hexdigest(),
    }
    (FOLDER / "vega.js").write_text(script, encoding="utf-8", newline="")
    (FOLDER / "vega.json").write_text(json.dumps(origin, indent=2) + "\n")


if __name__ == "__main__":
    main()
