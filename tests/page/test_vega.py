"""Pages carry Vega's JavaScript and need no V8 to be written."""

import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pages import FOLDERS, everything

import cnnbench.page

FOLDER = Path(cnnbench.page.__file__).parent


def test_the_javascript_is_what_its_record_says() -> None:
    written = (FOLDER / "vega.js").read_bytes()
    assert hashlib.sha256(written).hexdigest() == json.loads((FOLDER / "vega.json").read_text())["sha256"]


def test_the_javascript_is_what_vl_convert_packs() -> None:
    import vl_convert

    assert vl_convert.javascript_bundle() == (FOLDER / "vega.js").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("gibibytes", [2, 4])
def test_a_page_is_written_under_a_limit_on_address_space(gibibytes: int) -> None:
    everything()
    finished = subprocess.run(
        [sys.executable, "-m", "cnnbench", "report", *FOLDERS],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (gibibytes * 2**30,) * 2),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "vegaEmbed" in Path("report.html").read_text()
