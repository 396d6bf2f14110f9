"""Records are whole or absent, and say when they were changed."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from builders import run_config, run_record
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench import records
from cnnbench.records import io
from cnnbench.records.bundle import FileHash, Manifest, Pass, PrecisionFile
from cnnbench.records.schema import ClassTally, DataRecord, Failure, Robustness, RunRecord
from cnnbench.types import DIRECTIONS, INVISIBLE, TAGS, CnnbenchError, Cost, Exit, ImageSpec, printable

HIDDEN = "".join((*DIRECTIONS, *INVISIBLE, *map(chr, TAGS)))

PLAIN: dict[object, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**40),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(exclude_categories=("Cc", "Co", "Cs", "Zl", "Zp"), exclude_characters=HIDDEN)),
    bool: st.booleans(),
    type(None): st.none(),
    ClassTally: st.lists(st.integers(0, 2**40), min_size=1).map(  # all right, and one image at least
        lambda counts: ClassTally(images=(1, *counts), correct=(1, *counts), predicted=(1, *counts))
    ),
    ImageSpec: st.builds(
        ImageSpec,
        *[st.integers(1, 512)] * 2,
        channels=st.just(2),
        num_classes=st.integers(1, 9),
        mean=st.just(()) | st.tuples(*[st.floats(0, 1)] * 2),
        std=st.just(()) | st.tuples(*[st.floats(0, 1)] * 2),
    ),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type: every field of the records is filled, those that have a default too."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return within(arguments[0], arguments[1])
    if origin in (Union, UnionType):
        return st.one_of(map(values, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(*map(values, arguments), max_size=2)
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        return st.lists(values(arguments[0]), max_size=2).map(origin)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    fields = dataclasses.fields if dataclasses.is_dataclass(annotation) else msgspec.structs.fields
    hints = get_type_hints(annotation, include_extras=True)
    strategies = {field.name: values(hints[field.name]) for field in fields(annotation)}
    found = special(annotation, strategies)
    return st.builds(annotation, **strategies, **found)


def within(kind: Any, bounds: msgspec.Meta) -> st.SearchStrategy[Any]:
    """Values within the bounds of an annotation."""
    if kind is int:
        return st.integers(bounds.ge or 0, 2**40)
    if kind is float:
        return st.floats(bounds.ge, bounds.le, allow_nan=False, allow_infinity=False)
    return st.lists(values(get_args(kind)[0]), min_size=bounds.min_length or 0, max_size=3).map(tuple)


def special(annotation: Any, strategies: dict[str, Any]) -> dict[str, Any]:
    """Fields that depend on each other or name folders; they are taken out of `strategies`."""
    name = st.from_regex(r"[a-z0-9][a-z0-9_.+-]{0,20}", fullmatch=True)
    names = {"task": name, "arch": name, "dataset": name} if "task" in strategies else {}
    found: dict[str, Any] = {key: value for key, value in names.items() if annotation in RECORDS}
    found |= {"name": name} if annotation is DataRecord else {}
    found |= {"temperature": st.floats(1e-3, 1e3)}
    found |= {"correct": st.integers(0, 5)}
    found |= {"images": st.integers(5, 2**40)} if "correct" in strategies else {}
    if annotation is ClassTally:
        found = {}
    if annotation is Robustness:
        found |= {"shifts": st.just((-1, 1)), "accuracy": st.tuples(*[st.tuples(*[st.floats(0, 1)] * 2)] * 2)}
    if annotation is Manifest:
        found |= {"spec": st.just(ImageSpec(8, 8, 1, 2)), "class_names": st.just(("cat", "dog"))}
        found |= {"variants": st.tuples(values(PrecisionFile)), "files": st.just({"model.onnx": FileHash("a", 1)})}
    if annotation is PrecisionFile:  # whose name follows from its precision
        found |= {"precision": st.just("fp32"), "file": st.just("model.onnx"), "refused": st.just("")}
        found |= {"passes": st.tuples(values(Pass))}
    return {key: value for key, value in found.items() if strategies.pop(key, None) is not None}


RECORDS = (RunRecord, Manifest, Failure, Robustness)


def record(**changes: Any) -> RunRecord:
    return run_record(cost=Cost(3, 4, 5, 6), **changes)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    records.write(tmp_path / "result.json", record())
    return tmp_path / "result.json"


def refusal(path: Path) -> CnnbenchError:
    with pytest.raises(CnnbenchError) as refused:
        records.read(path, RunRecord)
    assert str(path) in str(refused.value)
    return refused.value


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # a run has many fields
@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_record_read_back_is_the_record_written(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    written = data.draw(values(kind))
    records.write(Path("record.json"), written)
    assert records.read(Path("record.json"), kind) == written


def test_a_record_tells_all_four_costs(written: Path) -> None:
    assert json.loads(written.read_text())["cost"] == {"params": 3, "macs": 4, "activations": 5, "depth": 6, "form": ""}


def test_a_record_names_its_schema(written: Path) -> None:
    assert json.loads(written.read_text())["schema"] == "cnnbench.run/2"


def test_an_exception_while_writing_leaves_the_old_file_whole_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), records.replacing(target) as partial:
        partial.write_text(f"ne{1 // 0}")
    with pytest.raises(ZeroDivisionError), records.replacing(target) as partial:
        1 // partial.write_bytes(b"")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with records.replacing(target) as partial:
        assert partial.parent == tmp_path, "a rename is atomic only within one folder"
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_the_new_file_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda *paths: (order.append("rename"), replace(*paths)))
    with records.replacing(tmp_path / "file.txt") as partial:
        partial.write_text("new")
    assert order == ["fsync", "rename"]


def test_files_get_the_permissions_that_open_would_give(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with records.replacing(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_not_a_number_is_never_written(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        records.write(written, record(config=run_config(lr=float("nan"))))
    assert written.read_bytes() == before


def test_an_unknown_schema_is_refused(written: Path) -> None:
    edit(written, lambda content: content.update(schema="cnnbench.run/99"))
    refused = refusal(written)
    assert refused.code == Exit.DATA
    assert "'cnnbench.run/99'; this version reads 'cnnbench.run/2'" in str(refused)


def test_a_run_of_the_schema_before_is_refused(written: Path) -> None:
    edit(written, lambda content: content.update(schema="cnnbench.run/1"))
    assert refusal(written).code == Exit.DATA


def test_a_manifest_is_not_read_as_a_run(written: Path) -> None:
    with pytest.raises(CnnbenchError, match=r"this version reads 'cnnbench\.bundle/3'") as refused:
        records.read(written, Manifest)
    assert refused.value.code == Exit.DATA


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["fit"].update(val_accuracy=0.99),
        lambda content: content["config"]["model"].update(lr=0.3),
        lambda content: content.update(note="added"),
        lambda content: content.pop("test"),
        lambda content: content.pop("seal"),
    ],
    ids=["number", "nested", "added", "removed", "unsealed"],
)
def test_an_edited_record_is_refused(written: Path, change: Callable[[dict[str, object]], object]) -> None:
    edit(written, change)
    refused = refusal(written)
    assert refused.code == Exit.VERDICT
    assert "edited" in str(refused)


def test_reformatting_is_no_edit(written: Path) -> None:
    content = json.loads(written.read_text())
    written.write_text(json.dumps(dict(reversed(content.items()))))
    assert records.read(written, RunRecord) == record()


def test_a_sealed_record_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    content = {"schema": "cnnbench.run/2", "task": "t"}
    (tmp_path / "r.json").write_text(json.dumps({**content, "seal": io.seal(content)}))
    assert refusal(tmp_path / "r.json").code == Exit.DATA


@pytest.mark.parametrize(
    "content",
    [b"", b'{"task": "mnist_le', b"[1, 2]", b"null", b"\x89PNG\r\n\x1a\n\x00\xff", b"{}"],
    ids=["empty", "cut", "list", "null", "binary", "object"],
)
def test_foreign_or_half_written_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.json").write_bytes(content)
    assert refusal(tmp_path / "r.json").code == Exit.DATA


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.json").code == Exit.DATA


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CnnbenchError, match="choose a folder you can write to") as refused:
        records.write(tmp_path / "file" / "result.json", record())
    assert refused.value.code == Exit.USAGE


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert records.sha256(tmp_path / "abc") == expected


def test_an_interruption_between_the_two_renames_puts_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "file").write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), records.replacing_folder(tmp_path / "task") as partial:
        (partial / "file").write_text("new")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["old"]


def test_a_new_bundle_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "only in the old one").write_text("old")
    with records.replacing_folder(tmp_path / "task") as partial:
        (partial / "file").write_text("new")
    assert [path.name for path in (tmp_path / "task").iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["task"]


def test_a_pipe_or_a_folder_in_the_place_of_a_record_is_one_line_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    assert refusal(tmp_path / "result.json").code == Exit.DATA
    (tmp_path / "folder.json").mkdir()
    assert refusal(tmp_path / "folder.json").code == Exit.DATA


def test_a_giant_is_not_read_to_its_end(written: Path) -> None:
    os.truncate(written, 2**40)  # sparse: it takes no room
    assert "larger than" in str(refusal(written))


@pytest.mark.parametrize("depth", [600, 100_000])
def test_a_deep_nesting_is_told_in_one_line(depth: int, written: Path) -> None:
    written.write_text('{"more": ' + "[" * depth + "]" * depth + "}")
    assert refusal(written).code == Exit.DATA


@pytest.mark.parametrize("depth", [600, 980])
def test_a_deep_nesting_within_a_record_is_told_in_one_line(depth: int, written: Path) -> None:
    edit(written, lambda content: content.update(schema="cnnbench.run/2", seal=""))
    written.write_text(written.read_text().replace('"arch": "a"', '"arch": ' + "[" * depth + "]" * depth))
    assert refusal(written).code in (Exit.DATA, Exit.VERDICT)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_does_not_have_is_refused(number: str, written: Path) -> None:
    written.write_text(written.read_text().replace('"params": 3', f'"params": {number}'))
    assert refusal(written).code == Exit.DATA
    assert "is not a number in JSON" in str(refusal(written))


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "a\x00b", "\x7f", "\x9b", "\u202ebla", "a\u2028b", "a\u200bb", "\u2800", "\U000e0061"]
)
def test_text_with_control_characters_is_refused_where_it_is_read_and_escaped_where_it_is_written(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    records.write(path, records.replace(record(), identity=text))
    assert records.read(path, RunRecord).identity == printable(text) != text
    edit(path, lambda content: content.update(identity=text))
    assert "control characters" in str(refusal(path))


def test_a_key_that_is_there_twice_is_refused(written: Path) -> None:
    written.write_text(written.read_text().replace('"seed": ', '"seed": 7, "seed": ', 1))
    assert refusal(written).code == Exit.DATA
    assert "the key 'seed' is there twice" in str(refusal(written))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_that_is_not_plain_utf8_is_refused(encoding: str, written: Path) -> None:
    written.write_text(written.read_text(), encoding=encoding)
    assert refusal(written).code == Exit.DATA
    assert "is not JSON" in str(refusal(written))


@pytest.mark.parametrize(
    "text", ["Zürich", "日本", "\u0645\u06cc\u200c\u062e", "👩\u200d🔬", "two\nlines\tand a tab", "\udcff"]
)
def test_text_of_any_script_is_written_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    records.write(path, records.replace(record(), identity=text))
    assert records.read(path, RunRecord).identity == text
