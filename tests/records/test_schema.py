"""What a record must hold beyond the types of its fields."""

import json
from pathlib import Path

import msgspec
import pytest
from builders import run_record, shifted

from cnnbench import records
from cnnbench.records.schema import Failure, Robustness, RunRecord
from cnnbench.types import CnnbenchError, Exit

FAILURE = Failure("d_a", "a", "d", 1, "i", 6, "out of memory", 1.5)


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", "..", "a\nb"])
@pytest.mark.parametrize(
    "record", [run_record(), FAILURE, shifted("c", 0.9, 0.5)], ids=lambda record: type(record).__name__
)
def test_a_record_whose_task_names_no_folder_of_its_own_is_refused(
    record: RunRecord | Failure | Robustness, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, path = type(record), Path("record.json")
    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.records.schema.check_name", lambda name: name)
        records.write(path, records.replace(record, task=name))
    assert json.loads(path.read_text())["task"] == name
    with pytest.raises(CnnbenchError, match=r"record\.json is not a .* record: the task's name is") as refused:
        records.read(path, kind)
    assert refused.value.code == Exit.DATA


@pytest.mark.parametrize("record", [run_record(), FAILURE], ids=lambda record: type(record).__name__)
def test_the_task_comes_first_in_a_record(record: msgspec.Struct) -> None:
    assert list(msgspec.to_builtins(record))[:2] == ["schema", "task"]
