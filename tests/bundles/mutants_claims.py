"""Mutants whose manifest, metadata, card or stored arrays claim what is not so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from export_helpers import Arrays, Forger
from mutations import NOTHING, of_claim, of_file, of_manifest

from cnnbench import records


def swapped(names: tuple[str, ...]) -> tuple[str, ...]:
    return (names[1], names[0], *names[2:])


def more_right(forger: Forger) -> None:
    """The accuracy of PyTorch, of every pass and in the metadata, 15 images higher."""
    m = forger.manifest
    up = tuple(
        records.replace(v, passes=tuple(records.replace(p, correct=p.correct + 15) for p in v.passes))
        for v in m.variants
    )
    forger.claim(reference=records.replace(m.reference, correct=m.reference.correct + 15), variants=up)
    forger.restate()


def edit_passes(forger: Forger, **changes: int) -> None:
    def edited(found: Any) -> Any:
        return records.replace(found, **{key: getattr(found, key) + by for key, by in changes.items()})

    made = []
    for variant in forger.manifest.variants:
        passes = tuple(map(edited, variant.passes))
        lost = forger.manifest.reference.correct - min(found.correct for found in passes)
        points = 100 * lost / forger.manifest.reference.images
        made.append(records.replace(variant, passes=passes, test_lost_points=points))
    forger.claim(variants=tuple(made))


def relabel(forger: Forger) -> None:
    """Fifteen wrongly named images of the stored ones get the label that was predicted, and the claims follow."""

    def change(arrays: Arrays) -> None:
        rows = np.flatnonzero(arrays["labels"] != arrays["predictions"])[:15]
        assert len(rows) == 15
        arrays["labels"][rows] = arrays["predictions"][rows]

    forger.predictions(change)
    more_right(forger)


def predict_otherwise(arrays: Arrays) -> None:
    """Another wrong class for images that are named wrongly anyway; none of them golden."""
    rows = np.flatnonzero(arrays["labels"] != arrays["predictions"])
    rows = rows[rows >= 16][:3]
    assert len(rows) == 3
    for row in rows:
        taken = {int(arrays["labels"][row]), int(arrays["predictions"][row])}
        arrays["predictions"][row] = min({*range(10)} - taken)


def predict_a_golden_image_otherwise(arrays: Arrays) -> None:
    """The first image's, and where that changes the sum, one more."""
    labels, predictions = arrays["labels"], arrays["predictions"]
    was_right = labels[0] == predictions[0]
    predictions[0] = min({*range(10)} - {int(labels[0]), int(predictions[0])})
    if was_right:
        other = np.flatnonzero(labels != predictions)[-1]
        assert other >= 16
        predictions[other] = labels[other]


def other_contract(forger: Forger) -> None:
    agreed = forger.manifest.contract
    pixels = records.replace(agreed.input, shape=(*agreed.input.shape[:3], 1))
    forger.claim(contract=records.replace(agreed, input=pixels))
    forger.restate()


def looser(forger: Forger) -> None:
    """An error bound that would allow another network."""
    forger.claim(reference=records.replace(forger.manifest.reference, error_bound=1e3))


def other_proof(**changes: Any) -> Callable[[Forger], None]:
    return lambda forger: forger.claim(proof=records.replace(forger.manifest.proof, **changes))


def no_proof_of_one(forger: Forger) -> None:
    forger.claim(proof=records.replace(forger.manifest.proof, constants=forger.manifest.proof.constants[1:]))


def restated(**changes: Any) -> Callable[[Forger], None]:
    """Claims in the manifest and in the metadata both."""

    def change(forger: Forger) -> None:
        forger.claim(**{key: value(getattr(forger.manifest, key)) for key, value in changes.items()})
        forger.restate()

    return change


def claimed(**changes: Any) -> Callable[[Forger], None]:
    return lambda forger: forger.claim(**{key: value(getattr(forger.manifest, key)) for key, value in changes.items()})


def smaller_arrays(forger: Forger) -> None:
    """Golden images, logits and predictions as they are, of a manifest whose images have twice the side."""
    spec = forger.manifest.spec
    forger.claim(spec=replace(spec, height=2 * spec.height, width=2 * spec.width))


def of_data(**changes: Any) -> Callable[[Forger], None]:
    return lambda forger: forger.claim(data=records.replace(forger.manifest.data, **changes))


def renamed(name: str) -> Callable[[dict[str, Any]], None]:
    """The first class has this name, in the manifest."""

    def change(content: dict[str, Any]) -> None:
        content["class_names"][0] = name

    return change


PROOF = [
    of_claim("a constant that the proof leaves out", no_proof_of_one, "proof", "in no proof"),
    of_claim("a proof whose own error is too large", other_proof(graph_error=1e-9), "proof", "do not make a proof"),
    of_claim("a proof whose own error is below 0", other_proof(function_error=-1.0), "proof", "do not make a proof"),
    of_claim("a proof of no image", other_proof(graph_images=0), "proof", "is of 0 images"),
    of_claim("a proof at no batch size", other_proof(graph_batches=()), "proof", "at the batch sizes none"),
    of_claim("a proof with a literal of 1e300", other_proof(literals=(1e300,)), "proof", "which no float32 number"),
    of_claim("a proof of branches that are not there", other_proof(control_flow=True), "proof", "the file has none"),
]

NAMES = [
    of_manifest("nine class names for ten outputs", lambda c: c["class_names"].pop(), "", "9 class names"),
    of_manifest("an escape sequence in a class name", renamed("\x1b[2J"), "", "control characters"),
    of_manifest("text turned by its direction in a class name", renamed("\u202egnp.exe"), "", "control characters"),
    of_manifest("a zero byte in a class name", renamed("a\0b"), "", "control characters"),
    of_manifest(
        "an escape sequence in the architecture", lambda c: c.update(arch="\x1b[31m"), "", "control characters"
    ),
]

CAUGHT = [
    *PROOF,
    *NAMES,
    of_claim("an error bound that would hide another network", looser, "golden", "would hide"),
    of_claim(
        "two class names swapped in the manifest", claimed(class_names=swapped), "graph", "disagree on class_names"
    ),
    of_claim(
        "two class names swapped in manifest and metadata",
        restated(class_names=swapped),
        "rescore",
        "class names",
        rescore=True,
    ),
    of_claim(
        "another architecture claimed in the manifest", claimed(arch=lambda _: "resnet110"), "graph", "architecture"
    ),
    of_claim("another contract", other_contract, "manifest", "another contract"),
    of_claim("a flattered accuracy, in manifest, metadata and card", more_right, "reference", "the manifest claims"),
    of_claim(
        "a flattered accuracy of the file alone", partial(edit_passes, correct=15), "reference", "what its flips allow"
    ),
    of_claim(
        "an accuracy of the file alone, lower, with flips beyond rounding to explain it",
        partial(edit_passes, correct=-15, flips=15),
        "manifest",
        "is not the trained network",
    ),
    of_claim(
        "the same, with flips by rounding to explain it",
        partial(edit_passes, correct=15, rounding_flips=15),
        "rescore",
        "not what the manifest claims",
        rescore=True,
    ),
    of_claim("labels made to fit, and every claim with them", relabel, "rescore", "labels", rescore=True),
    of_claim(
        "reference predictions edited",
        lambda forger: forger.predictions(predict_otherwise),
        "rescore",
        "differ from the stored",
        rescore=True,
    ),
    of_claim(
        "a golden image's reference prediction edited",
        lambda forger: forger.predictions(predict_a_golden_image_otherwise),
        "reference",
        "disagree on the class",
    ),
    of_claim(
        "golden logits edited",
        lambda forger: forger.arrays("golden.npz", lambda a: a.update(logits=a["logits"] * (1 + 1e-11))),
        "proof",
        "in float64 its logits differ by",
    ),
    of_file(
        "the card's accuracy edited",
        "README.md",
        lambda data: data.replace(b"value: 0.", b"value: 0.9", 1),
        "card",
        "claims something else",
        new_card=False,
    ),
    of_file(
        "the text of the card edited",
        "README.md",
        lambda data: data + b"It is 99.99 % right.\n",
        "card",
        "another text than manifest.json gives",
        new_card=False,
    ),
    of_claim("images of twice the side", smaller_arrays, "manifest", "another contract"),
    of_claim(
        "images of 6,000 pixels a side in the data", of_data(size=6000), "rescore", "have 6000 pixels", rescore=True
    ),
    of_claim(
        "10^12 training images in the data", of_data(train_images=10**12), "rescore", "bytes of images", rescore=True
    ),
    of_manifest("an error bound of NaN", lambda c: c["reference"].update(error_bound=float("nan")), "", "not JSON"),
    of_manifest("an error bound of 1e400", lambda c: c["reference"].update(error_bound=float("inf")), "", "not JSON"),
    of_manifest("a latency of 1e400", lambda c: c["variants"][0].update(latency_ms=float("inf")), "", "not JSON"),
]

PASSING = [
    of_claim(
        "another architecture claimed, in manifest, metadata and card",
        restated(arch=lambda _: "resnet110"),
        NOTHING,
        "the graph computes what is claimed; its name is the forger's word",
    ),
]
HTML = of_claim(
    "HTML in a class name, in manifest and metadata",
    restated(class_names=lambda names: ("<script>alert(1)</script>", *names[1:])),
    NOTHING,
    "a class may have any name that can be printed; the card writes it as text",
)
