"""Functions that return values: what Python calls, and what the verbs print.

Most live in the folder they belong to and are imported from there when they are first used, so that importing cnnbench
takes no time. Those that compose several folders are defined here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.types import CnnbenchError, Cost, Exit, Finding, ImageSpec

if TYPE_CHECKING:
    from cnnbench.analysis.description import describe_network
    from cnnbench.analysis.listing import list_architectures
    from cnnbench.bench.measure import measure_latency
    from cnnbench.bench.plan import LatencyOptions
    from cnnbench.bench.regression import compare_bundles, compare_records
    from cnnbench.bench.robustness import measure_robustness
    from cnnbench.bundles.bundle import ExportOptions, export_run
    from cnnbench.bundles.verify import verify_bundle
    from cnnbench.datasets.listing import list_datasets
    from cnnbench.lab import run_lesson
    from cnnbench.page.course import course_page
    from cnnbench.page.explain import explain_page
    from cnnbench.page.material import Material
    from cnnbench.page.report import report_page
    from cnnbench.page.write import write as write_page
    from cnnbench.records.schema import Manifest, RunConfig, RunRecord
    from cnnbench.runtime.predict import Model
    from cnnbench.sweeps.plan import plan as plan_sweep
    from cnnbench.sweeps.sweep import run_sweep
    from cnnbench.sweeps.sweep import survey as survey_sweep
    from cnnbench.tables.choose import Limits, choose_network
    from cnnbench.tables.collect import collect_records
    from cnnbench.tables.gather import gather
    from cnnbench.tables.pair import compare_pair
    from cnnbench.tables.rows import rows_of
    from cnnbench.tasks import list_tasks
    from cnnbench.training.config import parse as configure
    from cnnbench.training.run import fit, predict, test, validate

__all__ = [
    "CnnbenchError",
    "Cost",
    "Exit",
    "ExportOptions",
    "Finding",
    "ImageSpec",
    "LatencyOptions",
    "Limits",
    "Manifest",
    "Material",
    "Model",
    "RunConfig",
    "RunRecord",
    "choose_network",
    "collect_records",
    "compare_bundles",
    "compare_pair",
    "compare_records",
    "configure",
    "cost",
    "course_page",
    "describe_network",
    "diagnose",
    "explain_page",
    "export_run",
    "fit",
    "gather",
    "list_architectures",
    "list_datasets",
    "list_tasks",
    "load",
    "measure_latency",
    "measure_robustness",
    "plan_sweep",
    "predict",
    "report_page",
    "rows_of",
    "run_lesson",
    "run_sweep",
    "survey_sweep",
    "test",
    "validate",
    "verify_bundle",
    "write_page",
]

PLACES = {
    "ExportOptions": "cnnbench.bundles.bundle:ExportOptions",
    "LatencyOptions": "cnnbench.bench.plan:LatencyOptions",
    "Limits": "cnnbench.tables.choose:Limits",
    "Manifest": "cnnbench.records.schema:Manifest",
    "Material": "cnnbench.page.material:Material",
    "Model": "cnnbench.runtime.predict:Model",
    "RunConfig": "cnnbench.records.schema:RunConfig",
    "RunRecord": "cnnbench.records.schema:RunRecord",
    "choose_network": "cnnbench.tables.choose:choose_network",
    "collect_records": "cnnbench.tables.collect:collect_records",
    "compare_bundles": "cnnbench.bench.regression:compare_bundles",
    "compare_pair": "cnnbench.tables.pair:compare_pair",
    "compare_records": "cnnbench.bench.regression:compare_records",
    "configure": "cnnbench.training.config:parse",
    "course_page": "cnnbench.page.course:course_page",
    "describe_network": "cnnbench.analysis.description:describe_network",
    "explain_page": "cnnbench.page.explain:explain_page",
    "export_run": "cnnbench.bundles.bundle:export_run",
    "fit": "cnnbench.training.run:fit",
    "gather": "cnnbench.tables.gather:gather",
    "list_architectures": "cnnbench.analysis.listing:list_architectures",
    "list_datasets": "cnnbench.datasets.listing:list_datasets",
    "list_tasks": "cnnbench.tasks:list_tasks",
    "measure_latency": "cnnbench.bench.measure:measure_latency",
    "measure_robustness": "cnnbench.bench.robustness:measure_robustness",
    "plan_sweep": "cnnbench.sweeps.plan:plan",
    "predict": "cnnbench.training.run:predict",
    "report_page": "cnnbench.page.report:report_page",
    "rows_of": "cnnbench.tables.rows:rows_of",
    "run_lesson": "cnnbench.lab:run_lesson",
    "run_sweep": "cnnbench.sweeps.sweep:run_sweep",
    "survey_sweep": "cnnbench.sweeps.sweep:survey",
    "test": "cnnbench.training.run:test",
    "validate": "cnnbench.training.run:validate",
    "verify_bundle": "cnnbench.bundles.verify:verify_bundle",
    "write_page": "cnnbench.page.write:write",
}
"""Where a public name is defined; the imports above say the same to type checkers."""


if not TYPE_CHECKING:  # type checkers would believe that every name exists

    def __getattr__(name: str) -> Any:
        if name not in PLACES:
            raise AttributeError(f"module 'cnnbench.api' has no attribute {name!r}")
        module, _, attribute = PLACES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


def diagnose() -> list[Finding]:
    """Findings about this machine: packages, devices, ONNX Runtime providers and datasets, each read whole."""
    from cnnbench.datasets.check import check_datasets
    from cnnbench.environment import check_machine, check_packages
    from cnnbench.runtime.providers import check_providers

    return [*check_packages(), *check_machine(), *check_providers(), *check_datasets()]


def cost(arch: str, *, height: int = 32, width: int = 32, channels: int = 3, num_classes: int = 10) -> Cost:
    """Parameters, MACs, activations and depth of an architecture for one image, counted without running it.

    Raises:
        CnnbenchError: The architecture is unknown, or cannot take images of this size (exit 2).
    """
    from cnnbench.analysis.cost import cost as count

    return count(arch, ImageSpec(height, width, channels, num_classes))


def load(bundle: str | Path, *, precision: str = "fp32", provider: str = "cpu") -> Model:
    """The network of a bundle, ready for `.predict(images)`. Needs no torch.

    Args:
        bundle: A folder that `export` wrote. Verify one that somebody else wrote first.
        precision: Which of its files: fp32, or fp16 or int8 where the bundle has them.
        provider: cpu or cuda; it runs there or fails.

    Raises:
        CnnbenchError: It is no bundle or is damaged (exit 3), has no such file (exit 2), or the provider cannot be
            used here (exit 6).
    """
    from cnnbench.bundles.manifest import open_manifest
    from cnnbench.runtime.predict import Model
    from cnnbench.runtime.providers import open_session

    path = Path(bundle)
    files = {file.precision: file.file for file in open_manifest(path).kept}
    if precision not in files:
        raise CnnbenchError(f"{bundle} has no {precision} file: expected {' or '.join(files)}")
    return Model(path, open_session(path / files[precision], provider), precision)
