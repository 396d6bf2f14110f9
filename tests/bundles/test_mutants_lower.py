"""Mutants of the smaller files of a bundle, of LeNet-5."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_helpers import Forger
from mutations import Table, caught, of_claim
from onnx import TensorProto, numpy_helper

from cnnbench import records
from cnnbench.bundles import graph
from cnnbench.bundles.verify import verify_bundle


def nothing(_: Forger) -> None:
    """The fault was put in before."""


def other_half(forger: Forger) -> None:
    """Another network in float16, with errors, budget and accuracy claimed to fit."""
    file = forger.path / "model_fp16.onnx"
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    graph.save(model, file)
    made = []
    for variant in forger.manifest.variants:
        if variant.precision == "fp16":
            passes = tuple(records.replace(p, max_abs_error=1e3, p999_abs_error=1e3) for p in variant.passes)
            variant = records.replace(variant, passes=passes, budget_points=100.0)
        made.append(variant)
    forger.claim(variants=tuple(made))


@pytest.mark.slow
def test_another_variants_file_is_caught(three: Path, tmp_path: Path, mutants: Table) -> None:
    """The float16 file in the place of the float32 one, and the other way round."""
    swapped_files = {"model.onnx": "model_fp16.onnx", "model_fp16.onnx": "model.onnx"}
    for file, other in swapped_files.items():
        precision = "fp32" if file == "model.onnx" else "fp16"
        for restate, check in ((False, "graph"), (True, "proof" if precision == "fp32" else "lower")):
            forger = Forger(Path(shutil.copytree(three, tmp_path / f"{precision}{restate}")))
            shutil.copyfile(three / other, forger.path / file)
            if restate:
                forger.restate(precision)
            forger.sign()
            name = f"{other} in the place of {file}" + ", metadata made to fit" * restate
            word = {"graph": "disagree on precision", "proof": "the proof", "lower": "none of its constants is"}[check]
            mutants.add(caught(forger, of_claim(name, nothing, check, word)))


def test_another_network_of_lower_precision_is_caught_whatever_error_is_claimed(
    three: Path, tmp_path: Path, mutants: Table
) -> None:
    forger = Forger(Path(shutil.copytree(three, tmp_path / "other")))
    other_half(forger)
    forger.sign()
    name = "another network in float16, errors and budget made to fit"
    mutants.add(caught(forger, of_claim(name, nothing, "lower", "not the nearest half")))


def test_int8_weights_whose_sums_saturate_on_some_processors_are_caught(
    three: Path, tmp_path: Path, mutants: Table
) -> None:
    """Weights of 8 bits, which other exporters write: right where VNNI sums in 32 bits, wrong elsewhere."""
    forger = Forger(Path(shutil.copytree(three, tmp_path / "saturates")))
    file = forger.path / "model_int8.onnx"
    model = onnx.load(file)
    float32 = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(three / "model.onnx").graph.initializer
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weight = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and weight is not None and weight.data_type == TensorProto.INT8:
            scale = constants[node.input[1]]
            steps = numpy_helper.to_array(scale) * np.float32(0.6)
            expected = float32[weight.name.removesuffix("_quantized")]
            axis = next(item.i for item in node.attribute if item.name == "axis")
            along = steps.reshape([-1 if place == axis else 1 for place in range(expected.ndim)])
            weight.CopyFrom(numpy_helper.from_array(np.round(expected / along).astype(np.int8), weight.name))
            scale.CopyFrom(numpy_helper.from_array(steps, scale.name))
    graph.save(model, file)
    forger.sign()
    mutants.add(caught(forger, of_claim("int8 weights of 8 bits", nothing, "lower", "without VNNI saturate")))


def test_each_pass_of_lower_precision_is_scored_again_at_its_own_level(
    three: Path, tmp_path: Path, mutants: Table
) -> None:
    """Kernels of a processor may saturate with optimisations on, and not off: each claim is compared with its own."""
    forger = Forger(Path(shutil.copytree(three, tmp_path / "level")))
    fp32, fp16, int8 = forger.manifest.variants
    on, off = fp16.passes
    off = records.replace(off, correct=off.correct - 15, rounding_flips=off.rounding_flips + 15)
    reference = forger.manifest.reference
    lost = 100 * (reference.correct - off.correct) / reference.images
    forger.claim(variants=(fp32, records.replace(fp16, passes=(on, off), test_lost_points=lost), int8))
    forger.sign()
    verify_bundle(forger.path)
    name = "accuracy of float16 with optimisations off, 15 images lower"
    mutants.add(caught(forger, of_claim(name, nothing, "rescore", "with graph optimisations off", rescore=True)))
