"""Tables as people have them: read, or refused with the reason of the table itself."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_helpers import save_images

from cnnbench.datasets.layout import Listing, read_listing
from cnnbench.types import CnnbenchError, Exit

PATHS = [f"im/{name}/{number}.png" for name in ("cat", "dog") for number in range(6)]
LABELS = [path.split("/")[1] for path in PATHS]


@pytest.fixture
def pets() -> Path:
    """Twelve images of two classes below `im`, in which no folder of classes can be seen."""
    for value, name in enumerate(("cat", "dog")):
        save_images(Path("pets/im", name), 6, value)
    return Path("pets")


def text(head: str = "path,label", mark: str = ",", folder: str = "") -> str:
    return "\n".join([head, *(f"{folder}{path}{mark}{label}" for path, label in zip(PATHS, LABELS, strict=True))])


def files(listing: Listing) -> set[str]:
    return {entry.name for entries in listing.splits.values() for entry in entries}


def refusal(folder: Path) -> str:
    with pytest.raises(CnnbenchError) as refused:
        read_listing(folder)
    assert refused.value.code == Exit.DATA
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("head", ["Path,Label", " path, label ", "FILE_NAME,LABEL", "path,label,Path_of_mask"])
def test_columns_are_read_in_any_case_and_with_spaces(pets: Path, head: str) -> None:
    (pets / "x.csv").write_text(text(head))
    listing = read_listing(pets)
    assert files(listing) == {*PATHS}
    assert listing.class_names == ("cat", "dog")


def test_columns_of_parquet_are_read_in_any_case(pets: Path) -> None:
    pq.write_table(pa.table({" Path": PATHS, "Label": LABELS, "Mask": PATHS}), pets / "x.parquet")
    assert files(read_listing(pets)) == {*PATHS}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (text(mark=";", head="path;label").encode(), "the columns path;label, which are not parted by commas"),
        (text().encode("utf-16"), "x.csv cannot be read as a table: byte 0 is no UTF-8"),
        (text(head="path,label,caf\xe9").encode("latin-1"), "x.csv cannot be read as a table: byte 14 is no UTF-8"),
        (text(head=f"{PATHS[0]},cat").encode(), "x.csv has the columns im/cat/0.png, cat; expected a table with"),
        (text(head="path,class").encode(), "x.csv has the columns path, class; expected a table with the columns"),
        (text(head="path, Path").encode(), "x.csv has several columns path"),
        (b'path,label\n"a.png,cat\n', "x.csv cannot be read as a table: unexpected end of data"),
    ],
    ids=["semicolons", "UTF-16", "Latin-1", "no header", "no label", "twice", "quotes"],
)
def test_a_folder_whose_only_table_has_a_fault_is_told_of_the_table(pets: Path, content: bytes, said: str) -> None:
    (pets / "x.csv").write_bytes(content)
    message = refusal(pets)
    assert said in message
    assert message.endswith("without it, pets holds 1 class folders")


@pytest.mark.parametrize("path", ["a\x00b", "a\ud800b"])
def test_a_path_of_which_no_file_can_be_asked_is_refused(pets: Path, path: str) -> None:
    (pets / "x.jsonl").write_text(json.dumps({"path": path, "label": "cat"}))
    assert refusal(pets) == f"x.jsonl, row 1: its path {path!r} cannot be the name of a file"


def test_a_file_that_is_listed_twice_cannot_break_the_line(pets: Path) -> None:
    (pets / "x.jsonl").write_text("\n".join([json.dumps({"path": "a\nb", "label": "cat"})] * 2))
    assert refusal(pets).endswith(r"lists 1 files more than once: a\nb")


def test_a_table_of_garbage_is_told_of(pets: Path) -> None:
    (pets / "x.parquet").write_bytes(b"garbage" * 100)
    assert "x.parquet cannot be read as a table: Parquet magic bytes not found" in refusal(pets)


def test_a_faulty_table_beside_class_folders_is_told_of(pets: Path) -> None:
    (pets / "im/x.csv").write_text(text(mark=";", head="path;label"))
    (pets / "im/classes.csv").write_text("name,colour\ncat,red\n")
    listing = read_listing(pets / "im")
    assert len(files(listing)) == 12
    reasons = {skipped.name: skipped.reason for skipped in listing.skipped}
    assert "not parted by commas" in reasons["x.csv"]
    assert reasons["classes.csv"] == "beside the class folders"


def test_a_faulty_table_of_a_split_is_refused_beside_good_ones(pets: Path) -> None:
    """Else a test would be drawn in its place."""
    (pets / "train.csv").write_text(text())
    (pets / "test.csv").write_text("path;label\nim/cat/0.png;cat\n")
    assert "test.csv has the columns path;label" in refusal(pets)
    (pets / "test.csv").write_text("id,path\n1,im/cat/0.png\n")
    listing = read_listing(pets)
    assert [(s.name, s.reason) for s in listing.skipped] == [("test.csv", "a table that lists no images")]


@pytest.mark.parametrize("linked", [False, True])
def test_paths_from_the_root_into_the_folder_are_files_of_it(pets: Path, linked: bool) -> None:
    """`folder` may be given by way of a link."""
    (pets / "x.csv").write_text(text(folder=f"{pets.resolve()}/"))
    folder = pets
    if linked:
        folder = Path("elsewhere")
        folder.symlink_to(pets)
    listing = read_listing(folder)
    assert files(listing) == {*PATHS}
    assert not listing.skipped


def test_paths_by_way_of_the_folder_above_are_files_of_it(pets: Path) -> None:
    (pets / "x.csv").write_text(text(folder="../pets/"))
    assert not read_listing(pets).skipped
    (pets / "x.csv").write_text(text() + "\n../pets/im/cat/0.png,cat\n")
    assert "lists 1 files more than once: im/cat/0.png" in refusal(pets)


def test_paths_are_those_of_the_one_folder_that_holds_all(pets: Path) -> None:
    (pets / "train").mkdir()
    (pets / "x.csv").write_text(text() + "\n../../other.png,cat\n")
    save_images(Path("beside"), 1)
    Path("beside/0.png").rename("other.png")
    Path("outer").mkdir()
    pets.rename("outer/pets")
    assert "../../other.png" in files(read_listing(Path("outer")))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"path": [path.encode() for path in PATHS]}, "x.parquet, row 1: its path is of type bytes"),
        ({"label": [[label] for label in LABELS]}, "x.parquet, row 1: its label is of type list"),
        ({"label": [0.5, float("nan")] * 6}, "x.parquet, row 1: its label is of type float; expected text or a whole"),
        ({"label": [None, *[True] * 11]}, "x.parquet, row 2: its label is of type bool"),
        ({"group": [1.0] * 12}, "x.parquet, row 1: its group is of type float"),
    ],
)
def test_values_are_text_or_whole_numbers(pets: Path, columns: dict[str, list[Any]], said: str) -> None:
    pq.write_table(pa.table({"path": PATHS, "label": LABELS, **columns}), pets / "x.parquet")
    assert said in refusal(pets)


def test_whole_numbers_are_classes(pets: Path) -> None:
    pq.write_table(pa.table({"path": PATHS, "label": [int(label == "cat") for label in LABELS]}), pets / "x.parquet")
    assert read_listing(pets).class_names == ("0", "1")
