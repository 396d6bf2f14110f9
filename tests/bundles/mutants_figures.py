"""Mutants whose manifest claims figures, names or files that no export can have written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from export_helpers import Forger
from mutations import Mutant, of_claim, of_manifest

from cnnbench import records
from cnnbench.records.bundle import Calibration, FileHash, Share


def of_part(part: str, **changes: Any) -> Callable[[Forger], None]:
    """Claims within a part of the manifest."""
    return lambda forger: forger.claim(**{part: records.replace(getattr(forger.manifest, part), **changes)})


def of_first_file(**changes: Any) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        first, *rest = forger.manifest.variants
        forger.claim(variants=(records.replace(first, **changes), *rest))

    return change


def of_first_pass(**changes: Any) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        first, *rest = forger.manifest.variants[0].passes
        of_first_file(passes=(records.replace(first, **changes), *rest))(forger)

    return change


def on_one_level(forger: Forger) -> None:
    of_first_file(passes=forger.manifest.variants[0].passes[:1])(forger)


def on_an_unknown_provider(forger: Forger) -> None:
    passes = forger.manifest.variants[0].passes
    of_first_file(passes=tuple(records.replace(each, provider="tensorrt") for each in passes))(forger)


def refused_and_there(listed: bool) -> Callable[[Forger], None]:
    """A file of float16 that was refused, and lies in the folder all the same."""

    def change(forger: Forger) -> None:
        first = forger.manifest.variants[0]
        half = records.replace(first, precision="fp16", file="model_fp16.onnx", refused="slow", passes=())
        forger.claim(variants=(first, half))
        (forger.path / half.file).write_bytes(b"anything")
        if listed:
            forger.claim(files={**forger.manifest.files, half.file: FileHash("", 0)})

    return change


def other_mean(forger: Forger) -> None:
    forger.claim(spec=replace(forger.manifest.spec, mean=(0.1, 0.2, 0.3)))


def constant(**changes: Any) -> Callable[[Forger], None]:
    """Another rule or source of the constant with the most numbers."""

    def change(forger: Forger) -> None:
        entries = [
            records.replace(entry, **changes) if entry.name == "network.1.4.weight" else entry
            for entry in forger.manifest.proof.constants
        ]
        of_part("proof", constants=tuple(entries))(forger)

    return change


def manifest(name: str, change: Callable[[Forger], object], word: str) -> Mutant:
    return of_claim(name, change, "manifest", word)


def class_named(name: Callable[[list[str]], str]) -> Callable[[dict[str, Any]], None]:
    """Another name of the first class."""

    def change(content: dict[str, Any]) -> None:
        content["class_names"][0] = name(content["class_names"])

    return change


def prepared(both: bool = True, **changes: Any) -> Callable[[Forger], None]:
    """Another preprocessing; unless `both`, the data set's stays as it was."""

    def change(forger: Forger) -> None:
        assert forger.manifest.preprocessing
        other = replace(forger.manifest.preprocessing, **changes)
        forger.claim(preprocessing=other)
        if both:
            forger.claim(data=records.replace(forger.manifest.data, preprocessing=other))

    return change


def stated(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Another word in the preprocessing."""

    def change(content: dict[str, Any]) -> None:
        content["preprocessing"][name] = value

    return change


CALIBRATED = Calibration(temperature=2.0, split="val", images=40, ece_before=0.1, ece_after=0.05)
GPU = {"TensorrtExecutionProvider": Share(1.0, 1.0)}
CAUGHT = [
    manifest("a refused file that is there and listed", refused_and_there(True), "which its manifest does not keep"),
    of_claim("a refused file that is there, not listed", refused_and_there(False), "hashes", "not of this bundle"),
    of_claim(
        "another accuracy on validation", of_part("run", val_accuracy=1.0), "reference", "validation images right"
    ),
    of_claim("another normalisation claimed", other_mean, "proof", "normalises by the mean"),
    of_manifest("two classes with one name", class_named(lambda names: names[1]), "", "each another text"),
    of_manifest("a class name that cannot be seen", class_named(lambda _: "\u200b"), "", "control characters"),
    of_manifest("a class name with a letter that cannot be seen", class_named(lambda _: "a\u3164"), "", "control"),
    of_manifest("a class name of 10^6 characters", class_named(lambda _: "x" * 10**6), "", "at most 200"),
    manifest("a pass of a provider that is unknown", on_an_unknown_provider, "ran it"),
    manifest("a pass on the CPU that another provider ran", of_first_pass(active="CUDAExecutionProvider"), "ran it"),
    manifest("a pass on the CPU, its nodes elsewhere", of_first_pass(placement=GPU), "shares of providers"),
    manifest("no pass without graph optimisations", on_one_level, "one without"),
    manifest("errors at batch sizes that are not run", of_first_pass(batch_errors={"1": 0.0}), "other batch sizes"),
    manifest("a largest error below a part of the errors", of_first_pass(max_abs_error=0.0), "a largest error"),
    manifest("an error below 0", of_first_pass(p999_rel_error=-1.0), "a largest relative error"),
    manifest("a margin where no class changes", of_first_pass(largest_margin=1e9), "a margin"),
    manifest("TF32", of_part("reference", tf32=True), "TF32"),
    manifest("a bound below what float32 is off by", of_part("reference", float64_error=1.0), "from float64"),
    manifest("another number of test images", of_part("data", test_images=199), "another number"),
    manifest("a budget of 1000 points", of_first_file(budget_points=1000.0), "a budget"),
    manifest("a time below 0", of_first_file(latency_ms=-1.0, fp32_latency_ms=1.0), "times that are none"),
    manifest("no epoch", of_part("run", epochs=0), "0 epochs"),
    of_manifest("a cost below 0", lambda c: c["cost"].update(params=-1), "", "params is not a valid count"),
    manifest("a background that is no level", prepared(background=256), "predict.py would not follow"),
    manifest("16 bits shifted by 9", prepared(shift=9), "predict.py would not follow"),
    manifest("gray files for a network of colour", prepared(mode="L"), "predict.py would not follow"),
    manifest("two preprocessings", prepared(both=False, shift=3), "two preprocessings"),
    of_manifest("images that are not turned upright", stated("orientation", "as stored"), "", "orientation"),
    of_manifest("images without antialiasing", stated("antialias", False), "", "antialias"),
    of_claim("another background", prepared(background=77), "rescore", "not the one that", rescore=True),
    manifest(
        "calibrated probabilities", lambda f: f.claim(calibration=CALIBRATED), "not a constant of the proven graph"
    ),
    manifest("a licence that is none", lambda f: f.claim(licence="<b>free</b>"), "the licence"),
    of_claim("a proof of more images than there are", of_part("proof", graph_images=25), "proof", "of 25 of 24"),
    of_claim("weights called a literal", constant(rule="literal", source=""), "proof", "what the proof calls it"),
    of_claim("weights without a source", constant(source=""), "proof", "what the proof calls it"),
    of_claim("weights called a transpose of nothing", constant(rule="transpose"), "proof", "what the proof calls it"),
]
