"""Records and bundles that several tests make up, all small."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnbench import records
from cnnbench.records.bundle import (
    BundleRun,
    Contract,
    FileHash,
    Manifest,
    Pass,
    PrecisionFile,
    Proof,
    Reference,
    TensorSpec,
)
from cnnbench.records.schema import (
    DataConfig,
    DataRecord,
    Environment,
    Epoch,
    Equivariance,
    Failure,
    FitResult,
    ModelConfig,
    Resources,
    Robustness,
    RunConfig,
    RunRecord,
    TestResult,
)
from cnnbench.shipping.record import Chosen, Competitor, Decision, File, Images, Request, Rung, Scored
from cnnbench.training.predictions import write_predictions
from cnnbench.types import Augment, Cost, ImageSpec

IMAGES = 100
SPEC = ImageSpec(8, 8, 1, 2)
CURVE = (Epoch(1, 10, 2.5, 80, 0.70, 0.9, 1.1), Epoch(2, 20, 5.5, 160, 0.90, 0.5, 0.8))
MEASURED = Resources(3_000_000, "resident set", 120.0, "RAPL")
FIT = FitResult(2, 20, 2, 0.90, 10, 80, 6.0, 0.5, CURVE, MEASURED)


def environment(**changes: Any) -> Environment:
    usual = {
        "cnnbench": "0.1.0",
        "python": "3.11",
        "packages": {"torch": "2.14.1", "onnxruntime": "1.31.1"},
        "platform": "Linux x86_64",
        "cpu": "a processor",
        "cpu_count": 2,
        "threads": 1,
        "gpus": (),
        "git": None,
    }
    return Environment(**{**usual, **changes})


def data_record(name: str = "d", **changes: Any) -> DataRecord:
    usual = {
        "dataset": name,
        "name": name,
        "sha256": f"pixels of {name}",
        "train_images": 80,
        "val_images": IMAGES,
        "test_images": 100,
        "augment": Augment(),
    }
    return DataRecord(**{**usual, **changes})


def run_config(arch: str = "a", dataset: str = "d", **changes: Any) -> RunConfig:
    """Changes: of the model (lr, weight_decay), of the data (batch_size), else of the trainer."""
    model = {"arch": arch, "lr": 0.2, "weight_decay": 5e-4}
    data = {"dataset": dataset, "batch_size": 8}
    trainer = {"max_epochs": 2}
    for key, value in changes.items():
        (model if key in model else data if key in data else trainer)[key] = value
    return RunConfig(model=ModelConfig(**model), data=DataConfig(**data), trainer=trainer, seed_everything=1)


CONTRACT = Contract(
    TensorSpec("pixels", "uint8", ("batch", 8, 8, 1)), (TensorSpec("logits", "float32", ("batch", 2)),), 18, 8, "1.15.0"
)

PROOF = Proof(
    function_error=0.0,
    folded=0,
    fold_error=0.0,
    graph_error=1e-15,
    graph_images=24,
    graph_batches=(1, 2, 7),
    constants=(),
    literals=(),
    control_flow=False,
)


def run_record(arch: str = "a", seed: int = 1, right: int | None = 90, dataset: str = "d", **changes: Any) -> RunRecord:
    """A run of <dataset>_<arch> that got `right` of the test images right; None is a run without a test."""
    task = f"{dataset}_{arch}".replace("/", "-")
    usual = {
        "task": task,
        "arch": arch,
        "seed": seed,
        "spec": SPEC,
        "fit": FIT if right is None else fitted(right),
        "identity": "i",
        "fc_weights": 64_000,
        "training_macs": 55_000,
        "cost": Cost(params=1_000, macs=20_000, activations=300, depth=2),
        "environment": environment(),
        "data": data_record(dataset),
        "config": run_config(arch, dataset),
        "test": None if right is None else scored(right, f"checkpoint of {task} {seed}"),
    }
    return RunRecord(**{**usual, **changes})


def fitted(right: int, **changes: Any) -> FitResult:
    """Training whose best checkpoint got `right` of 100 validation images right."""
    return records.replace(FIT, **{"val_accuracy": right / IMAGES, "val_images": IMAGES, **changes})


def scored(right: int, checkpoint: str) -> TestResult:
    return TestResult(right / IMAGES, 0.5, IMAGES, right, checkpoint)


def write_run(record: RunRecord, runs: str = "runs") -> Path:
    """The run's folder, with its record."""
    folder = Path(runs) / record.task / f"seed{record.seed}"
    records.write(folder / "result.json", record)
    return folder


def write_certain(folder: Path, right: np.ndarray, confidence: float = 0.8) -> None:
    """Predictions of two classes, each with the same confidence; `right` `(images,)` bool."""
    labels = torch.arange(len(right)) % 2
    predictions = torch.where(torch.from_numpy(right), labels, 1 - labels)
    logits = torch.zeros(len(right), 2)
    logits[torch.arange(len(right)), predictions] = float(np.log(confidence / (1 - confidence)))
    columns = torch.stack([torch.arange(len(right)), labels, predictions], dim=1).float()
    write_predictions(folder / "predictions.parquet", torch.cat([columns, logits], dim=1))


def first(count: int) -> np.ndarray:
    """`(IMAGES,)` bool: the first `count` images."""
    found: np.ndarray = np.arange(IMAGES) < count
    return found


def write_bundle(record: RunRecord, size: int = 50_000, **changes: Any) -> Path:
    """The bundle of a tested run: two passes, in which one and two images flip."""
    assert record.test is not None
    one = Pass("cpu", "CPUExecutionProvider", True, {}, 90, 0, 1, 0.1, 2e-5, 1e-5, 1e-6, 1e-6, {})
    variant = PrecisionFile(
        "fp32",
        "model.onnx",
        size,
        "",
        0.1,
        0.0,
        None,
        None,
        (one, records.replace(one, flips=1, max_abs_error=3e-4)),
    )
    manifest = Manifest(
        record.task,
        record.arch,
        record.seed,
        record.data,
        SPEC,
        ("no", "yes"),
        record.cost,
        CONTRACT,
        "w",
        BundleRun(record.test.checkpoint_sha256, 2, record.fit.val_accuracy, ()),
        Reference(IMAGES, 90, "test", 0.0, 0.0),
        (variant,),
        {"model.onnx": FileHash(f"file of {record.task}", size)},
        environment(),
        proof=PROOF,
    )
    folder = Path("exports") / record.task
    records.write(folder / "manifest.json", records.replace(manifest, **changes))
    return folder


def measured(record: RunRecord, seconds: list[float], **changes: Any) -> dict[str, Any]:
    """A latency of a bundle as pytest-benchmark has it."""
    usual = {"model_sha256": f"file of {record.task}", "backend": "onnxruntime", "batch": 1, "threads": 1}
    names = {"task": record.task, "arch": record.arch}
    return {"extra_info": {**names, **usual, "provider": "cpu", **changes}, "stats": {"data": seconds}}


def write_latencies(*latencies: dict[str, Any], path: str = "latency.json") -> None:
    Path(path).write_text(json.dumps({"benchmarks": latencies}))


def write_failure(arch: str, seed: int, reason: str = "out of memory", dataset: str = "d", log: str = "") -> None:
    task = f"{dataset}_{arch}".replace("/", "-")
    folder = Path("runs") / task / f"seed{seed}"
    records.write(folder / "failure.json", Failure(task, arch, dataset, seed, "i", 6, reason, 1.5, log))


def shifted(checkpoint: str, unshifted: float, worst: float, **changes: Any) -> Robustness:
    """Accuracy at shifts of -1, 0 and 1: one shift is the worst, none is the best, all others are half way."""
    half = (unshifted + worst) / 2
    accuracy = ((worst, half, half), (half, unshifted, half), (half, half, half))
    moving = Equivariance("conv", 1, (worst / 2, worst / 3))
    usual = Robustness("d_a", "a", "d", 1, checkpoint, 50, (-1, 0, 1), accuracy, moving, "", environment())
    return records.replace(usual, **changes)


def decision() -> Decision:
    """What `ship` has shipped, of two networks."""
    val = Scored(490, 500)
    return Decision(
        request=Request(dataset="mnist5k", archs=("a", "b"), budget_seconds=60.0, min_accuracy=0.9),
        images=Images(name="mnist5k", sha256="0", train=4000, val=500, test=500, size="28x28x1", classes=10, folds=0),
        finished=True,
        ended="the longest schedule was reached",
        seconds=55.5,
        competitors=(
            Competitor(arch="a", params=10, macs=20, left="chosen", why="best", epochs=27, val=val, seeds=1, runs=2),
            Competitor(arch="b", params=10, macs=20, left="before training", why="too large"),
        ),
        rungs=(Rung(epochs=9, archs=("a",), val=(val,)),),
        files=(File(task="mnist5k_a_e27", seed=1, precision="int8", bytes=100, val=val, p90_ms=0.1, why=""),),
        answer="a int8",
        chosen=Chosen(
            arch="a",
            task="mnist5k_a_e27",
            seed=1,
            epochs=27,
            run="runs/mnist5k_a_e27/seed1",
            bundle="exports/mnist5k_a_e27",
            file="model_int8.onnx",
            precision="int8",
            bytes=100,
            val=val,
            test=Scored(485, 500),
            test_low=0.95,
            test_high=0.98,
            majority="0",
            majority_share=0.1,
        ),
    )
