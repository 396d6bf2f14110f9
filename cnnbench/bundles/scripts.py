"""The versions of predict.py that bundles hold: what runs on the machine of whoever deploys one is one of these.

A change of cnnbench/runtime/predict.py adds its SHA-256 at the end; one that changes pixels or probabilities also asks
for `exports/` to be exported again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnbench import records
from cnnbench.runtime import predict

VERSIONS = (
    "6a14da27a4aa7e04a8c51eb0d3daee5e40b6b13aa08fcd3aa7e5ae04535b6869",
    "318bf6272637e8db7bcbea22d5ebab80278c76885fcad3a69c006fbd99650ec7",
    "d5e800bf3e9d6a95c070b6ec1d0bfa2c7278f1bbebbc51fe72c4f6c2ae6440fe",
    "a4f2ec08dfa87b90baeb95976c829c7b5581dff512c2e7214cd6d6ae4deaf011",
)
"""SHA-256 of each predict.py of a `cnnbench.bundle/3`, oldest first."""
IMPORTING = VERSIONS[:1]
"""Those that import from their own folder: a numpy.py there hides the installed package."""
FOLLOWING = VERSIONS[2:]
"""Those that follow the preprocessing that a manifest states."""


@dataclass(frozen=True)
class Version:
    """Which predict.py a file is, in words, and whether whoever runs it must be warned."""

    words: str
    warned: bool = False
    follows: bool = False
    """Whether it follows the preprocessing that a manifest states."""


def version_of(script: Path) -> Version | None:
    """Which predict.py a file is; None where it is none of cnnbench's."""
    found = records.sha256(script)
    if found == records.sha256(Path(predict.__file__)):
        return Version("as in this version", follows=True)
    if found in IMPORTING:
        return Version("as in an earlier version, which imports from its own folder: export again", warned=True)
    return Version("as in an earlier version", follows=found in FOLLOWING) if found in VERSIONS else None
