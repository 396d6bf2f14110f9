"""The card of a bundle: what the Hub reads, what a reader copies, and that its figures are the manifest's."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from export_helpers import content, manifest_of
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.confidence import read_predictions
from cnnbench.bundles import card
from cnnbench.bundles.bundle import ExportOptions
from cnnbench.bundles.bundle import commands as bundle_commands
from cnnbench.bundles.quantise import PRECISIONS
from cnnbench.records.bundle import Calibration, Manifest
from cnnbench.records.schema import RunRecord
from cnnbench.types import Preprocessing


def tables(text: str) -> list[list[list[str]]]:
    """Every Markdown table, as rows of cells; the ruler below the head is a row, too."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    split = re.compile(r"(?<!\\)\|")
    return [[[c.strip() for c in split.split(line.strip())[1:-1]] for line in b.splitlines()] for b in blocks]


def code(text: str, language: str) -> str:
    """The code blocks of a language, one after the other."""
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module", params=["bundle", "three", "of_floats"])
def any_bundle(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def refusing(manifest: Manifest) -> Manifest:
    """With fp16 refused after its verification, and int8 before it."""
    fp32, fp16, int8 = manifest.variants
    slow = records.replace(fp16, refused="loses 3.00 points of accuracy; at most 0.2 are accepted")
    return records.replace(
        manifest, variants=(fp32, slow, records.replace(int8, refused="it cannot be made: no", passes=()))
    )


# --- what the Hub reads -----------------------------------------------------------------------------------------------


def test_the_hub_s_own_library_reads_the_accuracy_of_each_file(any_bundle: Path) -> None:
    manifest = manifest_of(any_bundle)
    data = ModelCard.load(any_bundle / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("onnx", "image-classification")
    assert data.model_name == manifest.task
    found = {result.metric_name: result for result in data.eval_results}
    assert len(found) == len(manifest.kept)
    for variant in manifest.kept:
        result = found[f"top-1, {variant.file}, CPUExecutionProvider"]
        assert (result.metric_type, result.task_type) == ("accuracy", "image-classification")
        assert (result.dataset_type, result.dataset_split) == (manifest.data.name, "test")
        assert result.metric_value == variant.passes[0].correct / manifest.reference.images


def test_the_model_index_is_the_front_matter_s_and_names_kept_files_alone(three: Path) -> None:
    manifest = refusing(manifest_of(three))
    name, results = model_index_to_eval_results(card.front_matter(manifest)["model-index"])
    assert name == manifest.task
    assert [result.metric_name for result in results] == ["top-1, model.onnx, CPUExecutionProvider"]


def test_a_card_is_made_from_the_manifest_alone(any_bundle: Path, tmp_path: Path) -> None:
    card.write(tmp_path / "README.md", manifest_of(any_bundle))
    assert (tmp_path / "README.md").read_bytes() == (any_bundle / "README.md").read_bytes()


@pytest.mark.parametrize("text", ["", "# no head\n", "---\nopen: head\n", "---\n[unclosed\n---\n"])
def test_a_card_without_a_head_is_read_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card.read_front_matter(tmp_path / "README.md") is None


# --- what a reader reads ----------------------------------------------------------------------------------------------


def test_every_row_of_a_table_has_as_many_cells_as_its_head(any_bundle: Path) -> None:
    found = tables((any_bundle / "README.md").read_text())
    assert len(found) == 6
    for table in found:
        assert len(table) >= 3
        assert {len(row) for row in table} == {len(table[0])}
        assert all(set(cell) <= {"-", ":"} for cell in table[1])


def test_refused_files_are_named_with_their_reasons_and_break_no_table(three: Path, tmp_path: Path) -> None:
    manifest = refusing(manifest_of(three))
    card.write(tmp_path / "README.md", manifest)
    text = (tmp_path / "README.md").read_text()
    for table in tables(text):
        assert {len(row) for row in table} == {len(table[0])}
    (row,) = (row for table in tables(text) for row in table if row[-1].startswith("refused"))
    assert row[0] == "`model_fp16.onnx`"
    assert row[-1] == "refused: loses 3.00 points of accuracy; at most 0.2 are accepted"
    assert "A file `model_int8.onnx` was asked for and refused: it cannot be made: no." in text


class Shown(HTMLParser):
    """The tags of a page, and the text of each paragraph."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.paragraphs = [""]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.paragraphs += [""] * (tag == "p")

    def handle_data(self, data: str) -> None:
        self.paragraphs[-1] += data


@pytest.mark.parametrize(
    "name",
    [
        *("<script>alert(1)</script>", "<img src=x onerror=y>", "a | b", "[a](http://b)", "![a](b)", "`a`", "*a*"),
        *("a\\b", "a & b", "&lt;"),
    ],
)
def test_names_are_text_in_it_and_no_markup(name: str, three: Path) -> None:
    manifest = manifest_of(three)
    changed = records.replace(
        manifest,
        class_names=(name, *manifest.class_names[1:]),
        environment=records.replace(manifest.environment, cpu=name),
        run=records.replace(manifest.run, commands=(f"cnnbench fit --data.name '{name}'", "```", "b\nc")),
    )
    _, _, body = card.text(changed)[4:].partition("\n---\n")
    shown = Shown(MarkdownIt("commonmark").enable("table").render(body))
    assert {*shown.tags} <= {*("h1", "h2", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td")}
    assert shown.tags.count("pre") == 3
    assert any(f"Classes, in order: {name}, " in text for text in shown.paragraphs)
    assert any(f"calls in turn on {name} with" in text for text in shown.paragraphs)
    for table in tables(body):
        assert {len(row) for row in table} == {len(table[0])}


def test_the_tables_hold_the_manifest_s_figures(three: Path) -> None:
    manifest = manifest_of(three)
    signature, passes, files, contents, *_ = tables((three / "README.md").read_text())
    assert [row[1:4] for row in signature[2:]] == [
        ["`pixels`", "uint8", "batch x 28 x 28 x 1"],
        ["`logits`", "float32", "batch x 10"],
    ]
    shown = [(v, found) for v in manifest.variants for found in v.passes]
    for row, (variant, found) in zip(passes[2:], shown, strict=True):
        assert row[:4] == [f"`{variant.file}`", found.active, "on" if found.optimized else "off", str(found.correct)]
        assert row[4] == f"{found.rounding_flips} / {found.flips}"
        assert row[5] == (f"{found.largest_margin:.1e}" if found.flips + found.rounding_flips else "-")
        numbers = [float(number) for cell in row[6:8] for number in cell.split(" / ")]
        expected = [found.max_abs_error, found.p999_abs_error, found.max_rel_error, found.p999_rel_error]
        assert numbers == pytest.approx(expected, rel=0.06)  # two digits are shown
        assert [float(n) for n in row[8].split(", ")] == pytest.approx(list(found.batch_errors.values()), rel=0.06)
    for row, variant in zip(files[2:], manifest.variants, strict=True):
        assert row[:3] == [f"`{variant.file}`", f"{variant.bytes:,}", f"{variant.lost_points:.2f}"]
        assert row[4] == f"{variant.test_lost_points:.2f}"
        assert row[-1] == "kept"
    assert [row[5:7] for row in files[2:]] == [["-", "-"], ["0.250", "0.500"], ["0.250", "0.500"]]
    assert {row[0].strip("`") for row in contents[2:]} == {path.name for path in three.iterdir()}


def test_it_tells_the_recall_of_each_class_and_what_thresholds_leave(bundle: Path, run: Path) -> None:
    text = (bundle / "README.md").read_text()
    *_, classes, thresholds = tables(text)
    kept = read_predictions(run / "predictions.parquet")
    recalls = recall_score(kept.labels, kept.predictions, average=None)
    assert [float(row[3]) for row in classes[2:]] == pytest.approx(sorted(100 * recalls), abs=0.005)
    balanced = balanced_accuracy_score(kept.labels, kept.predictions)
    f1 = f1_score(kept.labels, kept.predictions, average="macro")
    assert f"(the mean of the recalls) {100 * balanced:.2f} %, macro F1 {100 * f1:.2f} %" in text
    assert "Always answering 0 would be right on 10.00 % of the test images" in text
    val = read_predictions(run / "val_predictions.parquet")
    assert thresholds[2:]
    for row in thresholds[2:]:
        threshold, level = float(row[0]), float(row[1].removesuffix(" %"))
        for predictions, cells in ((val, row[2:4]), (kept, row[4:6])):
            sure = predictions.probabilities.max(axis=1) >= threshold
            assert cells[0] == f"{100 * sure.mean():.2f} % ({sure.sum()})"
            assert cells[1] == f"{100 * predictions.correct[sure].mean():.2f} %"
        assert 100 * val.correct[val.probabilities.max(axis=1) >= threshold].mean() >= level


def test_a_bundle_of_an_earlier_version_has_no_figures_by_class(bundle: Path) -> None:
    earlier = records.replace(manifest_of(bundle), by_class=None, thresholds=())
    assert "## Classes" not in card.text(earlier)
    assert "## Unknown" not in card.text(earlier)


def test_it_tells_the_accuracy_the_cost_and_the_classes(three: Path) -> None:
    manifest = manifest_of(three)
    text = " ".join((three / "README.md").read_text().split())
    reference = manifest.reference
    sentence = (
        f"Of {reference.images} test images it classifies {reference.correct} correctly: {reference.accuracy:.2%}"
    )
    assert sentence in text.replace(" %", "%")
    assert f"{manifest.cost.params:,} parameters, {manifest.cost.macs:,} multiply-adds" in text
    assert "Classes, in order: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in text
    assert manifest.weights_sha256 in text
    assert "It was not run on a GPU." in text


def test_it_tells_how_a_file_becomes_pixels(three: Path) -> None:
    """Of mnist5k: white digits on black, as arrays, so that nothing was transparent or deep."""
    manifest = manifest_of(three)
    assert manifest.preprocessing == Preprocessing(background=0, shift=8, border=0, mode="L")
    text = " ".join((three / "README.md").read_text().split())
    assert "its first frame, turned upright as EXIF says; gray of 16 bits shifted right by 8, at most 255;" in text
    assert "transparent pixels on black (level 0); gray, by ITU-R 601-2 from RGB; the whole image" in text
    mean = round(255 * manifest.spec.mean[0])
    assert f"the training images have a mean level of {mean}, at their borders of 0: light on dark." in text
    assert "augmentation: crops of images padded by 2;" in text


@pytest.mark.parametrize(
    ("border", "words"), [(10, ": light on dark."), (69, "of 69."), (131, "of 131."), (132, ": dark on light.")]
)
def test_it_says_which_side_is_light_where_that_is_clear(border: int, words: str, three: Path) -> None:
    manifest = manifest_of(three)
    assert manifest.preprocessing
    spec = replace(manifest.spec, mean=(100 / 255,))
    chosen = replace(manifest.preprocessing, border=border, background=255, shift=4)
    text = " ".join(card.text(records.replace(manifest, spec=spec, preprocessing=chosen)).split())
    assert f"at their borders of {border}" in text
    assert f"{words} " in text[text.index("at their borders") :][:60]
    assert "transparent pixels on white (level 255)" in text
    assert "values >> 4, 255" in text


def test_a_card_of_arrays_that_no_file_holds_has_a_snippet_for_arrays(three: Path) -> None:
    text = card.text(records.replace(manifest_of(three), preprocessing=None))
    assert 'pixels = np.zeros((1, 28, 28, 1), "uint8")\nlogits = session.run' in text
    assert "An image file becomes pixels" not in text


def test_it_tells_what_was_proven(three: Path) -> None:
    manifest = manifest_of(three)
    text = " ".join((three / "README.md").read_text().split())
    proof = manifest.proof
    assert f"(largest difference {proof.function_error:.1e} of the largest logit)" in text
    exact = f"{max(proof.fold_error, proof.graph_error):.1e} on 24 images at batches 1, 2, 7 (at most 1e-12)"
    assert f"The file evaluated in float64 is that network: {exact}" in text
    assert f"Each of its {len(proof.constants)} floating-point constants" in text


def test_its_python_runs_as_it_stands(any_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(any_bundle, tmp_path / "bundle"))
    Image.linear_gradient("L").save(folder / "image.png")
    snippet = code((any_bundle / "README.md").read_text(), "python")
    script = "import sys\n" + snippet + "print(logits.shape, 'torch' in sys.modules)"
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stderr, done.stdout) == ("", "(1, 10) False\n")


# --- the commands that make it again ----------------------------------------------------------------------------------


def commands(bundle: Path) -> list[list[str]]:
    lines = code((bundle / "README.md").read_text(), "sh").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("cnnbench ")]


@pytest.mark.slow
def test_its_commands_make_the_same_bundle_again(bundle: Path) -> None:
    for command in commands(bundle):
        assert main(command) == 0
    again, before = content(Path("exports") / bundle.name), content(bundle)
    assert {*again} == {*before}
    assert {name for name in before if again[name] != before[name]} <= {"manifest.json"}  # which names the checkpoint
    assert manifest_of(Path("exports") / bundle.name).weights_sha256 == manifest_of(bundle).weights_sha256


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bundle", []),
        ("three", ["--precision", "fp32,fp16,int8", "--max-accuracy-loss", "5%"]),
        ("of_floats", ["--input", "float", "--probabilities", "softmax"]),
    ],
)
def test_it_names_the_options_of_its_export(name: str, options: list[str], request: pytest.FixtureRequest) -> None:
    assert commands(request.getfixturevalue(name))[-1] == ["export", "runs/mnist5k_lenet5/seed1", *options]


def test_a_folder_of_images_is_not_named_by_its_path(run: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    data = records.replace(record.config.data, dataset="folder", folder="/home/me/my images", name="flowers")
    record = records.replace(record, task="my task", config=records.replace(record.config, data=data, task="my task"))
    fit, test, export = bundle_commands(record, ExportOptions(precisions=PRECISIONS, max_accuracy_loss=1.5))
    assert "/home/me" not in fit + test + export
    assert "--data.folder FOLDER" in fit
    assert shlex.split(test)[2:] == shlex.split(fit)[2:]
    options = ["--precision", "fp32,fp16,int8", "--max-accuracy-loss", "1.5%"]
    assert shlex.split(export)[2:] == ["runs/my task/seed1", *options]


# --- which file to deploy ---


def timed(manifest: Manifest, **milliseconds: float) -> Manifest:
    """With these medians of the smaller files; fp32 takes 1 ms and 400 bytes, fp16 200 bytes, int8 100."""
    sizes = {"fp32": 400, "fp16": 200, "int8": 100}
    times = {name: {"latency_ms": ms, "fp32_latency_ms": 1.0} for name, ms in milliseconds.items()}
    files = (
        records.replace(file, bytes=sizes[file.precision], refused="", **times.get(file.precision, {}))
        for file in manifest.variants
    )
    return records.replace(manifest, variants=tuple(files))


@pytest.mark.parametrize(
    ("milliseconds", "file"),
    [
        ({"fp16": 0.9, "int8": 0.95}, "model_int8.onnx"),
        ({"fp16": 1.0, "int8": 1.01}, "model_fp16.onnx"),
        ({"fp16": 1.2, "int8": 1.01}, "model.onnx"),
    ],
    ids=["the smallest", "as fast", "slower"],
)
def test_the_smallest_file_that_is_not_slower_than_fp32_is_recommended(
    milliseconds: dict[str, float], file: str, three: Path
) -> None:
    manifest = timed(manifest_of(three), **milliseconds)
    assert card.recommended(manifest).file == file
    assert f"Deploy `{file}`: " in card.text(manifest)


def test_a_refused_file_is_not_recommended(three: Path) -> None:
    manifest = refusing(timed(manifest_of(three), fp16=0.5, int8=0.5))
    assert "Deploy `model.onnx`: the only file." in card.text(manifest)


@pytest.mark.parametrize("after", [0.01, 0.02, 0.03])
def test_a_temperature_that_did_not_make_the_error_smaller_is_said_to(after: float, bundle: Path) -> None:
    fitted = Calibration(temperature=1.5, split="val", images=10, ece_before=0.02, ece_after=after)
    text = card.text(records.replace(manifest_of(bundle), calibration=fitted))
    assert f"2.00 % without, {100 * after:.2f} % with it" in text
    assert ("on these the temperature did not make it smaller" in text) == (after >= 0.02)
    assert "calibrated" not in text
