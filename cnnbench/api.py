"""Functions that return values: what Python calls, and what the verbs print.

Most live in the folder they belong to and are imported from there when they are first used, so that importing cnnbench
takes no time. Those that compose several folders, or take a name where the folder's own takes what it names, are
defined here.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cnnbench.arguments import checked
from cnnbench.extras import told
from cnnbench.types import COST_SPEC, CnnbenchError, Cost, Exit, Finding, ImageSpec, Size, Split, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger
    from torch import nn

    from cnnbench.analysis.description import NetworkDescription
    from cnnbench.analysis.listing import list_architectures
    from cnnbench.architectures import architecture as register_architecture
    from cnnbench.audit.audit import audit_folder
    from cnnbench.bench.measure import measure_latency
    from cnnbench.bench.plan import LatencyOptions
    from cnnbench.bench.regression import compare_bundles, compare_records
    from cnnbench.bench.robustness import measure_robustness
    from cnnbench.bundles.bundle import ExportOptions, export_run
    from cnnbench.bundles.classify import classify
    from cnnbench.bundles.dry_run import dry_export
    from cnnbench.bundles.verify import verify_bundle as verify
    from cnnbench.datasets import Decoded, Source
    from cnnbench.datasets import dataset as register_dataset
    from cnnbench.datasets.download import download_dataset
    from cnnbench.datasets.listing import list_datasets
    from cnnbench.lab import run_lesson
    from cnnbench.page.audit import audit_page
    from cnnbench.page.course import course_page
    from cnnbench.page.explain import explain_page
    from cnnbench.page.material import Material
    from cnnbench.page.report import report_page
    from cnnbench.page.write import write as write_page
    from cnnbench.records.bundle import Manifest
    from cnnbench.records.schema import NetworkChecks, RunConfig, RunRecord
    from cnnbench.runtime.predict import Model
    from cnnbench.shipping.record import Decision
    from cnnbench.shipping.ship import ship
    from cnnbench.sweeps.plan import plan as plan_sweep
    from cnnbench.sweeps.sweep import survey as survey_sweep
    from cnnbench.sweeps.sweep import sweep
    from cnnbench.tables.choose import choose
    from cnnbench.tables.collect import collect_records
    from cnnbench.tables.pair import compare_pair
    from cnnbench.tables.results import Results, read_results
    from cnnbench.tasks import list_tasks
    from cnnbench.training.classifier import Classifier
    from cnnbench.training.clean import find_clutter, remove_clutter
    from cnnbench.training.config import OptionValue, configure
    from cnnbench.training.data import ImageData
    from cnnbench.training.run import ValidationResult

__all__ = [
    "Classifier",
    "CnnbenchError",
    "Cost",
    "Decision",
    "Decoded",
    "Exit",
    "ExportOptions",
    "Finding",
    "ImageData",
    "ImageSpec",
    "LatencyOptions",
    "Manifest",
    "Material",
    "Model",
    "Results",
    "RunConfig",
    "RunRecord",
    "Source",
    "Split",
    "audit_folder",
    "audit_page",
    "build",
    "choose",
    "classify",
    "collect_records",
    "compare_bundles",
    "compare_pair",
    "compare_records",
    "configure",
    "cost",
    "course_page",
    "diagnose",
    "download_dataset",
    "dry_export",
    "explain",
    "explain_page",
    "export_run",
    "find_clutter",
    "fit",
    "list_architectures",
    "list_datasets",
    "list_tasks",
    "load",
    "measure_latency",
    "measure_robustness",
    "plan_sweep",
    "predict",
    "read_results",
    "register_architecture",
    "register_dataset",
    "remove_clutter",
    "report_page",
    "run_lesson",
    "ship",
    "survey_sweep",
    "sweep",
    "test",
    "validate",
    "verify",
    "write_page",
]

PLACES = {
    "Classifier": "cnnbench.training.classifier:Classifier",
    "Decision": "cnnbench.shipping.record:Decision",
    "Decoded": "cnnbench.datasets:Decoded",
    "ExportOptions": "cnnbench.bundles.bundle:ExportOptions",
    "ImageData": "cnnbench.training.data:ImageData",
    "LatencyOptions": "cnnbench.bench.plan:LatencyOptions",
    "Manifest": "cnnbench.records.bundle:Manifest",
    "Material": "cnnbench.page.material:Material",
    "Model": "cnnbench.runtime.predict:Model",
    "Results": "cnnbench.tables.results:Results",
    "RunConfig": "cnnbench.records.schema:RunConfig",
    "RunRecord": "cnnbench.records.schema:RunRecord",
    "Source": "cnnbench.datasets:Source",
    "audit_folder": "cnnbench.audit.audit:audit_folder",
    "audit_page": "cnnbench.page.audit:audit_page",
    "choose": "cnnbench.tables.choose:choose",
    "classify": "cnnbench.bundles.classify:classify",
    "collect_records": "cnnbench.tables.collect:collect_records",
    "compare_bundles": "cnnbench.bench.regression:compare_bundles",
    "compare_pair": "cnnbench.tables.pair:compare_pair",
    "compare_records": "cnnbench.bench.regression:compare_records",
    "configure": "cnnbench.training.config:configure",
    "course_page": "cnnbench.page.course:course_page",
    "download_dataset": "cnnbench.datasets.download:download_dataset",
    "dry_export": "cnnbench.bundles.dry_run:dry_export",
    "explain_page": "cnnbench.page.explain:explain_page",
    "export_run": "cnnbench.bundles.bundle:export_run",
    "find_clutter": "cnnbench.training.clean:find_clutter",
    "list_architectures": "cnnbench.analysis.listing:list_architectures",
    "list_datasets": "cnnbench.datasets.listing:list_datasets",
    "list_tasks": "cnnbench.tasks:list_tasks",
    "measure_latency": "cnnbench.bench.measure:measure_latency",
    "measure_robustness": "cnnbench.bench.robustness:measure_robustness",
    "plan_sweep": "cnnbench.sweeps.plan:plan",
    "read_results": "cnnbench.tables.results:read_results",
    "register_architecture": "cnnbench.architectures:architecture",
    "register_dataset": "cnnbench.datasets:dataset",
    "remove_clutter": "cnnbench.training.clean:remove_clutter",
    "report_page": "cnnbench.page.report:report_page",
    "run_lesson": "cnnbench.lab:run_lesson",
    "ship": "cnnbench.shipping.ship:ship",
    "survey_sweep": "cnnbench.sweeps.sweep:survey",
    "sweep": "cnnbench.sweeps.sweep:sweep",
    "verify": "cnnbench.bundles.verify:verify_bundle",
    "write_page": "cnnbench.page.write:write",
}
"""Where a public name is defined; the imports above say the same to type checkers."""


if not TYPE_CHECKING:  # type checkers would believe that every name exists

    def __getattr__(name: str) -> Any:
        if name not in PLACES:
            raise AttributeError(f"module 'cnnbench.api' has no attribute {name!r}")
        module, _, attribute = PLACES[name].partition(":")
        with told(f"cnnbench.{name}"):
            found = getattr(importlib.import_module(module), attribute)
        return _public(found, name) if isinstance(found, FunctionType) else found

    @functools.cache  # a function is the same each time that it is asked for
    def _public(function: Any, name: str) -> Any:
        return checked(function, name=name)


def diagnose() -> list[Finding]:
    """Findings about this machine: packages, devices, providers, confinement, and datasets, each read whole."""
    from cnnbench.datasets.check import check_datasets
    from cnnbench.environment import check_machine, check_packages
    from cnnbench.runtime.check import check_confinement, check_providers

    return [*check_packages(), *check_machine(), *check_providers(), *check_confinement(), *check_datasets()]


def build(name: str, *, size: Size = COST_SPEC, num_classes: int | None = None) -> nn.Module:
    """An untrained network: from float pixels `(N, C, H, W)` in [0, 1] to raw logits `(N, num_classes)`.

    Args:
        name: A registered architecture, `torchvision/<name>` or `timm/<name>`.
        size: Size of the images; by default 32x32x3.
        num_classes: By default 10, or those of `size` where it is an ImageSpec.

    Raises:
        CnnbenchError: The name is unknown, or the network cannot take images of this size (exit 2).
    """
    from cnnbench.architectures import build as build_architecture

    with told("build"):
        return build_architecture(name, spec_of(size, num_classes))


def cost(network: str | nn.Module, *, size: Size = COST_SPEC, num_classes: int | None = None) -> Cost:
    """Parameters, MACs, activations and depth for one image, counted without arithmetic.

    Args:
        network: The name of an architecture, or a module that takes `(1, C, H, W)`, which is left as it is.
        size, num_classes: See `build`.

    Raises:
        CnnbenchError: The architecture is unknown, or cannot take images of this size (exit 2).
    """
    with told("cost"):
        from torch.nn import Module

        from cnnbench.analysis.cost import cost as cost_of_architecture
        from cnnbench.analysis.cost import count

    spec = spec_of(size, num_classes)
    return count(network, spec) if isinstance(network, Module) else cost_of_architecture(network, spec)


def explain(arch: str | nn.Module, *, size: Size = COST_SPEC, num_classes: int | None = None) -> NetworkDescription:
    """A network layer by layer: shapes, receptive fields in pixels, parameters and MACs. Its `str` is a table.

    Args:
        arch: The name of an architecture, or a module that takes `(1, C, H, W)`, which is left as it is.
        size, num_classes: See `build`.

    Raises:
        CnnbenchError: The architecture is unknown, or cannot take images of this size (exit 2).
    """
    with told("explain"):
        from torch.nn import Module

        from cnnbench.analysis.description import describe_module, describe_network

    spec = spec_of(size, num_classes)
    return describe_module(arch, spec) if isinstance(arch, Module) else describe_network(arch, spec)


@checked
def fit(
    task: str | Path | RunConfig | None = None,
    *,
    runs_dir: str | Path = "runs",
    overwrite: bool = False,
    resume: str | Path | None = None,
    test: bool = False,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    logger: str = "tensorboard",
    skip_checks: bool = False,
    **options: OptionValue,
) -> RunRecord | None:
    """Train a network on the training images, in the folder <runs_dir>/<task>/seed<k>.

    A network that is not one of ours is tried first, in training and in evaluation, and exported untrained; see
    `training.preflight`. That is done once per source, images and version of torch.

    Args:
        task: A task's name, `<dataset>_<arch>`, a YAML file, or a configuration; see `configure`.
        runs_dir: Folder of the runs.
        overwrite: Replace an earlier run of the same task and seed.
        resume: A checkpoint of this run to continue from; "last" is the newest.
        test: Afterwards score the best checkpoint on every test image, once.
        callbacks: More callbacks for Lightning's Trainer.
        loggers: More loggers for it.
        logger: Any of csv, tensorboard, mlflow and wandb, separated by commas; metrics.csv is always written.
        skip_checks: Do not try a network of others; the record says so.
        options: See `configure`.

    Returns:
        The record in result.json; None under `fast_dev_run`, which writes nothing, and in processes but the first.

    Raises:
        CnnbenchError: The configuration, the data, the network or the folder cannot be used, or training diverged
            (exit 2); images are missing or altered (exit 3); the network is not a function of the image (exit 4).
    """
    from cnnbench.architectures import architecture
    from cnnbench.records.schema import NetworkChecks
    from cnnbench.training import run
    from cnnbench.training.data import ImageData

    config = _configured(task, options)
    checks, data = None, ImageData(config.data)
    if not architecture[config.model.arch].ours:
        checks = NetworkChecks(skipped=True) if skip_checks else _checked(config.model.arch, data)
    elif skip_checks:
        raise CnnbenchError(f"skip-checks does not apply to {config.model.arch}: networks of cnnbench are not tried")
    return run.fit(
        config,
        data=data,
        runs_dir=runs_dir,
        overwrite=overwrite,
        resume=resume,
        test=test,
        callbacks=callbacks,
        loggers=loggers,
        logger=logger,
        checks=checks,
    )


def _checked(arch: str, data: ImageData) -> NetworkChecks:
    """What is found when a network is tried, each warning a line on stderr."""
    from cnnbench.bundles.dry_run import dry_export_warnings
    from cnnbench.training import preflight

    data.prepare_data()
    checks = preflight.check_once(arch, data.loaded.spec, more=dry_export_warnings)
    for warning in checks.warnings:
        print(f"note: {arch}: {warning}", file=sys.stderr)
    return checks


@checked
def validate(
    task: str | Path | RunConfig | None = None,
    *,
    runs_dir: str | Path = "runs",
    checkpoint: str | Path | None = None,
    **options: OptionValue,
) -> ValidationResult:
    """Score a checkpoint on the validation images.

    Args:
        task: As for `fit`: the configuration of its run.
        runs_dir: Folder of the runs.
        checkpoint: A file, a run folder, "best" or "last"; by default the run's best.
        options: See `configure`.

    Raises:
        CnnbenchError: The checkpoint is missing or damaged (exit 3), or of another architecture or data (exit 2).
    """
    from cnnbench.training import run

    return run.validate(_configured(task, options), runs_dir=runs_dir, checkpoint=checkpoint)


@checked
def test(
    task: str | Path | RunConfig | None = None,
    *,
    runs_dir: str | Path = "runs",
    checkpoint: str | Path | None = None,
    **options: OptionValue,
) -> RunRecord | None:
    """Score a checkpoint on every test image, once; for a run's best checkpoint the result is recorded.

    Arguments and errors as `validate`.

    Returns:
        The run's record with the result; None in processes but the first.
    """
    from cnnbench.training import run

    return run.test(_configured(task, options), runs_dir=runs_dir, checkpoint=checkpoint)


@checked
def predict(
    task: str | Path | RunConfig | None = None,
    *,
    runs_dir: str | Path = "runs",
    checkpoint: str | Path | None = None,
    **options: OptionValue,
) -> Path:
    """Write the predictions for every test image to predict.parquet, beside the checkpoint; returns the file.

    Arguments and errors as `validate`.
    """
    from cnnbench.training import run

    return run.predict(_configured(task, options), runs_dir=runs_dir, checkpoint=checkpoint)


def _configured(task: str | Path | RunConfig | None, options: Mapping[str, OptionValue]) -> RunConfig:
    from cnnbench.records.schema import RunConfig
    from cnnbench.training.config import configure

    if not isinstance(task, RunConfig):
        return configure(task, **options)
    if options:
        raise CnnbenchError(f"{next(iter(options))} is given beside a configuration: set it in there, with `configure`")
    return task


@checked
def load(bundle: str | Path, *, precision: str = "fp32", provider: str = "cpu") -> Model:
    """The network of a bundle, ready for `.predict(images)`. Needs no torch.

    Args:
        bundle: A folder that `export` wrote. Verify one that somebody else wrote first.
        precision: Which of its files: fp32, or fp16 or int8 where the bundle has them.
        provider: cpu or cuda; it runs there or fails.

    Raises:
        CnnbenchError: It is not a bundle or is damaged (exit 3), has no such file (exit 2), or the provider cannot be
            used here (exit 6).
    """
    from cnnbench.bundles.manifest import open_manifest
    from cnnbench.runtime.predict import BundleError, Model
    from cnnbench.runtime.providers import open_session

    path = Path(bundle)
    files = {file.precision: file.file for file in open_manifest(path).kept}
    if precision not in files:
        raise CnnbenchError(f"{bundle} has no {precision} file: expected {' or '.join(files)}")
    session = open_session(path / files[precision], provider)
    try:
        return Model(path, session, precision)
    except BundleError as error:
        raise CnnbenchError(str(error), Exit.DATA) from None
