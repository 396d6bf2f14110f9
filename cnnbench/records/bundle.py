"""The records of a bundle: its manifest, with the contract, the proof and the figures of its files."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from cnnbench.records.schema import ClassTally, Count, DataRecord, Environment, Fraction, Part, Some, TaskPart
from cnnbench.types import LONGEST_NAME, CnnbenchError, Cost, ImageSpec, Preprocessing, is_control


class TensorSpec(Part, frozen=True):
    """An input or output of a graph; the first of its sizes is "batch"."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]


class Contract(Part, frozen=True):
    """Names, types and shapes of a graph's input and outputs, and the versions it needs."""

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    opset: int
    ir_version: int
    oldest_onnxruntime: str


class BundleRun(Part, frozen=True):
    """The run a bundle was exported from."""

    checkpoint_sha256: str
    epochs: Count
    val_accuracy: Fraction
    commands: tuple[str, ...]
    """That made the run and the bundle."""


class FileHash(Part, frozen=True):
    """A file of a bundle."""

    sha256: str
    bytes: Count


class Reference(Part, frozen=True):
    """What every file of a bundle is compared with: PyTorch's float32 logits of the whole test split, on the CPU."""

    images: Some
    correct: Count
    logits_from: str
    """"test" where they are the ones that `test` scored; "export" where they were computed for the export."""
    float64_error: float
    """Largest difference of PyTorch's float32 logits from float64 logits, on the golden images."""
    error_bound: float
    """How far a runtime's float32 logits may be from PyTorch's; see `bundles.parity.comparison`."""
    tf32: bool = False
    """TF32 rounds products to 10 bits of mantissa; it is off on every provider."""

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


class Share(Part, frozen=True):
    """What part of a graph a provider really ran, by ONNX Runtime's own profile. Fractions of 1."""

    nodes: float
    time: float


class Pass(Part, frozen=True):
    """One pass of ONNX Runtime over the whole test split, against PyTorch. Errors are in logits.

    Relative errors are in parts of the largest logit of the same image, in absolute value.
    """

    provider: str
    """The one that was asked for."""
    active: str
    """ONNX Runtime's name of the one that the session used."""
    optimized: bool
    """Whether ONNX Runtime's graph optimisations were all on, as by default, or all off."""
    placement: dict[str, Share]
    correct: Count
    flips: Count
    """Images whose top-1 class differs although the margin exceeds what the error bound can explain: a bug."""
    rounding_flips: Count
    """Images whose top-1 class differs within the bound: a tie that rounding decides."""
    largest_margin: float
    """The largest margin, in PyTorch's logits, of an image that changes class; 0 where none does."""
    max_abs_error: float
    p999_abs_error: float
    max_rel_error: float
    p999_rel_error: float
    batch_errors: dict[str, float]
    """Largest absolute error on the first images at each batch size that was tried."""


Precision = Literal["fp32", "fp16", "int8"]


def file_name(precision: Precision) -> str:
    """The name in a bundle of the file of this precision."""
    return "model.onnx" if precision == "fp32" else f"model_{precision}.onnx"


class PrecisionFile(Part, frozen=True):
    """The file of one precision in a bundle, or one that was refused, and why."""

    precision: Precision
    file: str
    bytes: Count
    refused: str
    """The reason; empty where the file is kept."""
    budget_points: float
    """Points of accuracy (percent) that it may lose to PyTorch on the validation split."""
    lost_points: float
    """Points that it loses there, in the worst pass."""
    latency_ms: float | None
    """Median time of one image on one CPU thread, in turn with fp32; None where fp32 stands alone."""
    fp32_latency_ms: float | None
    passes: tuple[Pass, ...]
    test_lost_points: float = 0.0
    """Points that it loses on the test split, in the worst pass: reported, and no part of the decision."""
    clamped: int = 0
    """Weights of a float16 file whose nearest half is 0 or infinite, and that hold the converter's limit instead."""

    def __post_init__(self) -> None:
        if self.file != file_name(self.precision):  # a reader would load another file than was verified
            raise CnnbenchError(f"the file of {self.precision} is {self.file!r}: expected {file_name(self.precision)}")
        if not self.refused and not self.passes:
            raise CnnbenchError(f"{self.file} was kept without a pass: expected one at least")


class Constant(Part, frozen=True):
    """A floating-point constant of the float32 file, and what it is; see docs/proof.md."""

    name: str
    rule: Literal["tensor", "transpose", "pieces", "literal", "empty"]
    source: str
    """The tensor, or the parts of tensors, of the reference network whose bits it has; empty for a literal."""
    sha256: str
    """SHA-256 of its type, shape and bytes."""


class Proof(Part, frozen=True, kw_only=True):
    """That the network is a function of the image, and that the file is that network: exact, in float64.

    Errors are in parts of the largest logit. The reference network is the trained one with batch norm folded in
    float64; see docs/proof.md.
    """

    function_error: float
    """Largest difference between calls of the trained network, and between batches that hold the same image."""
    folded: int
    """Batch norms that were folded into the layer before them."""
    fold_error: float
    """Error of the reference network, before its weights are rounded once to float32, from the trained one."""
    graph_error: float
    """Error of the file, evaluated in float64, from the reference network in float64."""
    graph_images: int
    """Golden images on which the file was evaluated."""
    graph_batches: tuple[int, ...]
    """Batch sizes at which it was."""
    constants: tuple[Constant, ...]
    literals: tuple[float, ...]
    """Numbers that the file holds rounded to float32: arguments of operators, and what follows from them."""
    control_flow: bool
    """Whether the network itself has branches or loops; else the file may have none."""


class Calibration(Part, frozen=True, kw_only=True):
    """How probabilities were calibrated: they are softmax(logits / temperature)."""

    temperature: float
    """A float32 number above 0."""
    split: str
    """That it was fitted on."""
    images: int
    ece_before: float | None = None
    """Expected calibration error of PyTorch's logits of the test images, a fraction, without the temperature."""
    ece_after: float | None = None
    """The same with it."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise CnnbenchError(f"the temperature is {self.temperature:g}: expected a number above 0")


class Answered(Part, frozen=True):
    """Images of a split that are answered at a threshold, and those of them that are answered rightly."""

    images: Count
    correct: Count


class Threshold(Part, frozen=True, kw_only=True):
    """A probability below which the likeliest class is called unknown; see `analysis.selective`."""

    level: float
    """Share of the answered validation images that had to be right."""
    threshold: float
    """The smallest, in steps of 0.0001, at which they are; chosen on validation images."""
    val: Answered
    test: Answered
    """Reported; it chose nothing."""


class ExportRecord(TaskPart, frozen=True):
    """What tables show of a bundle: what the files are, what they take and return, and their figures."""

    seed: Count
    data: DataRecord
    spec: ImageSpec
    class_names: tuple[str, ...]
    cost: Cost
    contract: Contract
    weights_sha256: str
    run: BundleRun
    """The checkpoint's hash, how it was trained, and the commands that made it and this bundle."""
    reference: Reference
    variants: tuple[PrecisionFile, ...]
    """The files by precision, kept and refused."""
    files: dict[str, FileHash]
    environment: Environment

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = sorted({"model.onnx", *(file.file for file in self.kept)} - {*self.files})
        if missing or "fp32" not in {file.precision for file in self.kept}:
            raise CnnbenchError(f"no file of float32, or no hash of {', '.join(missing) or 'it'}: expected both")
        most = max(result.correct for file in self.kept for result in file.passes)
        if max(most, self.reference.correct) > self.reference.images:
            raise CnnbenchError(f"more images are right than the {self.reference.images} that there are")

    @property
    def kept(self) -> tuple[PrecisionFile, ...]:
        return tuple(file for file in self.variants if not file.refused)

    def accuracy(self, file: PrecisionFile) -> float:
        """Top-1 of a file on the test split, on its first provider, as it runs by default."""
        return file.passes[0].correct / self.reference.images


class Manifest(ExportRecord, frozen=True, kw_only=True, tag_field="schema", tag="cnnbench.bundle/3"):
    """`manifest.json` of a bundle: what the files are, what they take and return, and their verification."""

    proof: Proof
    preprocessing: Preprocessing | None = None
    """None in a bundle of an earlier version, whose predict.py ignores transparency and keeps the upper 8 of 16 bits,
    and where no image file has as many channels as the network takes."""
    calibration: Calibration | None = None
    """None where probabilities are the softmax of the logits as they are."""
    by_class: ClassTally | None = None
    """Test images by class, as PyTorch classifies them; None in bundles of earlier versions."""
    thresholds: tuple[Threshold, ...] = ()
    """Offered for predict.py's --threshold, by the probabilities that it prints for the float32 file."""
    licence: str | None = None
    """Licence of the bundle, by its SPDX name."""
    card: str = ""
    """SHA-256 of the template that the card was written by; see `bundles.card.version`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.class_names
        odd = [name for name in names if not name.strip() or len(name) > LONGEST_NAME or any(map(is_control, name))]
        odd = odd or [name for name, count in Counter(names).items() if count > 1]
        if odd or len(names) != self.spec.num_classes:
            raise CnnbenchError(
                f"{len(names)} class names{f', one of them {odd[0][:LONGEST_NAME]!r}' if odd else ''}: expected "
                f"{self.spec.num_classes}, each another text of at most {LONGEST_NAME} characters, without control "
                "characters"
            )


class EarlierManifest(ExportRecord, frozen=True, tag_field="schema", tag="cnnbench.bundle/2"):
    """The manifest of a bundle of version 0.1, which has no proof: tables show it, and its files are not run."""
