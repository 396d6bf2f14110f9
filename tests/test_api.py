"""The public names: each exists, whatever was imported before, and does what it says."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import numpy as np
import pytest
from lightning.pytorch import Callback
from PIL import Image
from torch import nn

import cnnbench
from cnnbench import api
from cnnbench.arguments import kinds_of
from cnnbench.types import CnnbenchError, Exit

SMALL: dict[str, Any] = {"arch": "linear", "train_images": 64, "max_epochs": 1}


@dataclass(frozen=True)
class World:
    """A tested run of the session, the folder of its runs, and its bundle."""

    run: Path
    runs_dir: Path
    bundle: Path

    @property
    def config(self) -> cnnbench.RunConfig:
        return cnnbench.configure(arch="lenet5", max_epochs=2)


@pytest.fixture
def world(run: Path, runs_dir: Path, bundle: Path) -> World:
    return World(run, runs_dir, bundle)


QUICK = cnnbench.LatencyOptions(backends=["onnxruntime"], batches=[1], seconds=0.2)


def gathered(world: World) -> Any:
    return cnnbench.read_results(world.run).records


def compared_records(world: World) -> bool:
    """Whether a record of latencies is faster or slower than itself."""
    record = cnnbench.measure_latency([world.bundle], options=QUICK, processes=1, out="latency.json").record
    return cnnbench.compare_records(record, record).regression


SPEC = cnnbench.ImageSpec(28, 28, 1, 10)


def written_page(world: World) -> Path:
    path = Path("report.html")
    cnnbench.write_page(cnnbench.report_page(cnnbench.Material(gathered(world))), path)
    return path


def planned(world: World) -> Any:
    overrides = ["trainer.max_epochs=2", "data.batch_size=128"]  # those of the run
    return cnnbench.plan_sweep(["mnist5k_lenet5"], seeds=1, overrides=overrides, runs_dir=world.runs_dir)


def swept(world: World) -> Any:
    (outcome,) = cnnbench.sweep(
        "mnist5k_lenet5",
        seeds=1,
        overrides=["trainer.max_epochs=2", "data.batch_size=128"],  # those of the run
        runs_dir=world.runs_dir,
    )
    return outcome


def image_file() -> Path:
    path = Path("image.png")
    Image.new("L", (28, 28)).save(path)
    return path


def image_folder() -> Path:
    for label in ("dark", "light"):
        folder = Path("images", label)
        folder.mkdir(parents=True, exist_ok=True)
        for place in range(10):
            Image.new("L", (8, 8), place + 100 * (label == "light")).save(folder / f"{place}.png")
    return Path("images")


def refused_download() -> bool:
    with pytest.raises(CnnbenchError, match="there is nothing to fetch"):
        cnnbench.download_dataset("mnist5k")
    return True


def refused_ship() -> bool:
    """What it does is tested in tests/shipping."""
    with pytest.raises(CnnbenchError, match="name a folder of images"):
        cnnbench.ship()
    return True


CALLS: dict[str, Callable[[World], object]] = {
    "audit_folder": lambda world: len(cnnbench.audit_folder(image_folder()).images) == 20,
    "audit_page": lambda world: cnnbench.audit_page(cnnbench.audit_folder(image_folder())).sections,
    "build": lambda world: len(list(cnnbench.build("lenet5", size=28).parameters())) == 10,
    "choose": lambda world: cnnbench.choose(world.run).chosen,
    "classify": lambda world: len(cnnbench.classify(world.bundle, image_file()).answers) == 1,
    "collect_records": lambda world: cnnbench.collect_records([str(world.run)], out=Path("kept")).runs == 1,
    "compare_bundles": lambda world: cnnbench.compare_bundles(world.bundle, world.bundle, options=QUICK),
    "compare_pair": lambda world: cnnbench.compare_pair(gathered(world), a="lenet5", b="lenet5").a == "mnist5k_lenet5",
    "compare_records": lambda world: not compared_records(world),
    "configure": lambda world: world.config.model.arch == "lenet5",
    "cost": lambda world: cnnbench.cost("lenet5", size="28x28x1").params == 61_706,
    "course_page": lambda world: cnnbench.course_page({"losses": cnnbench.run_lesson("losses")}).title == "Losses",
    "diagnose": lambda world: "provider cpu" in {finding.topic for finding in cnnbench.diagnose()},
    "download_dataset": lambda world: refused_download(),
    "dry_export": lambda world: cnnbench.dry_export("linear", SPEC).largest_error < 1e-3,
    "explain": lambda world: cnnbench.explain("lenet5", size=SPEC).cost.params == 61_706,
    "explain_page": lambda world: cnnbench.explain_page([cnnbench.explain("linear", size=SPEC)]).sections,
    "export_run": lambda world: cnnbench.export_run(world.run).task == "mnist5k_lenet5",
    "find_clutter": lambda world: cnnbench.find_clutter([world.runs_dir]) is not None,
    "fit": lambda world: cnnbench.fit(**SMALL).fit.epochs == 1,  # type: ignore[union-attr]
    "list_architectures": lambda world: "lenet5" in {row.arch for row in cnnbench.list_architectures()},
    "list_datasets": lambda world: "mnist5k" in {row.dataset for row in cnnbench.list_datasets()},
    "list_tasks": lambda world: "mnist_lenet5" in {row.task for row in cnnbench.list_tasks()},
    "load": lambda world: cnnbench.load(world.bundle).size == (28, 28, 1),
    "measure_latency": lambda world: (
        cnnbench.measure_latency([world.bundle], options=QUICK, out="l.json").rows[0].p50_ms
    ),
    "measure_robustness": lambda world: cnnbench.measure_robustness(world.run, images=10).images == 10,
    "plan_sweep": lambda world: planned(world)[0].seed == 1,
    "predict": lambda world: cnnbench.predict(world.config, runs_dir=world.runs_dir).is_file(),
    "read_results": lambda world: cnnbench.read_results([world.run])[0].seeds == 1,
    "remove_clutter": lambda world: cnnbench.remove_clutter(["runs"], folders=[world.runs_dir]) == [],
    "report_page": lambda world: cnnbench.report_page(cnnbench.Material(gathered(world))).answers[0].name == "lenet5",
    "run_lesson": lambda world: cnnbench.run_lesson("losses").holds,
    "ship": lambda world: refused_ship(),
    "survey_sweep": lambda world: cnnbench.survey_sweep(planned(world))[0].state == "done",
    "sweep": lambda world: swept(world).accuracy > 0.5,
    "test": lambda world: cnnbench.test(world.config, runs_dir=world.runs_dir).test.images == 500,  # type: ignore[union-attr]
    "validate": lambda world: cnnbench.validate(world.config, runs_dir=world.runs_dir).images == 500,
    "verify": lambda world: cnnbench.verify(world.bundle),
    "write_page": lambda world: written_page(world).is_file(),
}
"""Every public function, called so that what comes back can be judged."""


@pytest.fixture(scope="module", autouse=True)
def every_submodule_imported() -> None:
    for module in pkgutil.walk_packages(cnnbench.__path__, "cnnbench."):
        importlib.import_module(module.name)


def test_public_names_are_sorted_documented_and_no_submodules() -> None:
    assert sorted(cnnbench.__all__) == cnnbench.__all__ == api.__all__
    assert not set(cnnbench.__all__) & {module.name for module in pkgutil.iter_modules(cnnbench.__path__)}
    assert all(getattr(cnnbench, name).__doc__ for name in cnnbench.__all__)
    for register in (cnnbench.register_architecture, cnnbench.register_dataset):
        assert register.__doc__ != type(register).__doc__
        assert "Raises:" in str(register.__doc__)
    assert set(cnnbench.__all__) <= set(dir(cnnbench))


def test_every_public_function_is_called_below() -> None:
    assert set(CALLS) == {name for name in cnnbench.__all__ if inspect.isfunction(getattr(cnnbench, name))}


SLOW = (
    "compare_bundles",
    "compare_records",
    "diagnose",
    "dry_export",
    "explain_page",
    "measure_latency",
    "report_page",
    "write_page",
)
"""Functions that measure, export, draw, or read every dataset; the tests of the verbs call them in the fast tests."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in CALLS])
def test_a_public_function_works_after_every_submodule_was_imported(name: str, world: World) -> None:
    assert CALLS[name](world)


def test_type_checkers_see_the_names_that_are_imported_when_used() -> None:
    (block,) = [
        node
        for node in ast.parse(inspect.getsource(api)).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name: seen[name] for name in api.PLACES} == api.PLACES


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, cnnbench; dir(cnnbench); cnnbench.list_architectures(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "numpy", "onnxruntime", "jsonargparse"} & set(done.stdout.split())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'architectures_'"):
        cnnbench.architectures_  # type: ignore[attr-defined] # noqa: B018


def test_an_unknown_architecture_has_no_cost() -> None:
    with pytest.raises(cnnbench.CnnbenchError, match="did you mean lenet5"):
        cnnbench.cost("lenet6")


CHECKED = {
    name: [key for key in kinds_of(function) if key != "options" or name not in ("configure", "fit")]
    for name in CALLS
    for function in [getattr(cnnbench, name)]
    if hasattr(function, "__wrapped__")
}
"""The public functions whose arguments are held to their types, and those arguments."""


def sample(kind: Any) -> Any:
    """A value of a type."""
    if isinstance(kind, type):
        return "x" if kind is str else Path("x") if kind is Path else kind.__new__(kind)
    origin = get_origin(kind)
    return {} if origin is Mapping else [] if origin is Sequence else "x"


def test_every_function_that_takes_arguments_is_checked() -> None:
    assert set(CALLS) - set(CHECKED) == {"build", "cost", "diagnose", "explain"}, "which know a name when they see it"


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in CHECKED.items() for key in keys])
def test_an_argument_of_another_type_is_one_line_before_anything_is_done(name: str, key: str) -> None:
    function = getattr(cnnbench, name)
    kinds = kinds_of(function)
    positional, named = [], {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name != key and parameter.default is not parameter.empty:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = object() if parameter.name == key else sample(kinds[parameter.name])
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    with pytest.raises(CnnbenchError) as refused:
        function(*positional, **named)
    assert str(refused.value).startswith(f"{name}: {key} is an object: expected ")
    assert refused.value.code == Exit.USAGE


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))


UNNAMED: dict[str, Callable[[], object]] = {
    "Classifier(net)": lambda: cnnbench.Classifier(net()),  # type: ignore[arg-type]
    "Classifier(None)": lambda: cnnbench.Classifier(None),  # type: ignore[arg-type]
    "fit(net)": lambda: cnnbench.fit(net()),  # type: ignore[arg-type]
    "fit(arch=net)": lambda: cnnbench.fit(arch=net()),  # type: ignore[arg-type]
    "cost(class)": lambda: cnnbench.cost(nn.Linear),  # type: ignore[arg-type]
    "cost(function)": lambda: cnnbench.cost(net),  # type: ignore[arg-type]
    "build(None)": lambda: cnnbench.build(None),  # type: ignore[arg-type]
    "build(net)": lambda: cnnbench.build(net()),  # type: ignore[arg-type]
    "explain(function)": lambda: cnnbench.explain(net),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", UNNAMED)
def test_a_network_where_a_name_is_expected_is_told_how_to_get_one(call: str) -> None:
    with pytest.raises(CnnbenchError, match=r"expected .*@cnnbench\.register_architecture$") as refused:
        UNNAMED[call]()
    assert "\n" not in str(refused.value)
    assert refused.value.code == Exit.USAGE


def test_a_module_is_explained_and_left_as_it_is() -> None:
    network = net().train()
    explained = cnnbench.explain(network, size=SPEC)
    assert [described.layer.name for described in explained.layers] == ["0", "3"]
    assert [described.measured_field for described in explained.layers] == [(3, 3), "image"]
    assert explained.cost == cnnbench.cost(network, size=SPEC)
    assert str(explained).splitlines()[-1].startswith("Sequential for 28x28x1, 10 classes: 13,550 parameters")
    assert cnnbench.explain(network, size="28x28x1").spec.num_classes == 10
    three = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 3))
    assert str(cnnbench.explain(three, size=SPEC)).splitlines()[-1].startswith("Sequential for 28x28x1, 3 classes")
    assert network.training
    assert not any(parameter.is_meta for parameter in network.parameters())
    with pytest.raises(CnnbenchError, match="Sequential fails on an image of 8x8x1"):
        cnnbench.explain(network, size="8x8x1")


@pytest.mark.parametrize("callbacks", [Callback(), [5]], ids=["one", "a number"])
def test_callbacks_are_a_list_of_callbacks(callbacks: Any) -> None:
    with pytest.raises(CnnbenchError, match=r"fit: callbacks is .*: expected a list, each a Callback"):
        cnnbench.fit(arch="linear", callbacks=callbacks)


def test_costs_are_listed_for_a_size_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnbench.architectures import architecture

    monkeypatch.setitem(vars(architecture), "entries", {"linear": architecture["linear"]})
    for size in ("28x28x1", SPEC):
        (row,) = cnnbench.list_architectures(size)
        assert (row.size, row.params) == ("28x28x1", 7_850)
    with pytest.raises(CnnbenchError, match="size '28x28x1x1': expected HEIGHTxWIDTHxCHANNELS"):
        cnnbench.list_architectures("28x28x1x1")


@pytest.mark.parametrize("target", [99, 0, -0.5])
def test_an_accuracy_in_percent_is_no_target(target: float) -> None:
    for read in (lambda: cnnbench.read_results("x", target_accuracy=target), lambda: cnnbench.Material(None, target)):  # type: ignore[arg-type]
        with pytest.raises(CnnbenchError, match=f"target accuracy {target}: expected a fraction such as 0.98"):
            read()


def test_a_bundle_predicts(bundle: Path) -> None:
    images = np.zeros((2, 28, 28, 1), np.uint8)
    assert set(cnnbench.load(bundle).predict(images)) <= set("0123456789")


@pytest.mark.parametrize(
    ("damage", "options", "message", "code"),
    [
        (lambda bundle: (bundle / "manifest.json").unlink(), {}, "is not a bundle: it has no manifest.json", Exit.DATA),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), {}, "manifest.json", Exit.DATA),
        (lambda bundle: (bundle / "model.onnx").write_bytes(b"x"), {}, "is not a readable ONNX file", Exit.DATA),
        (lambda bundle: (bundle / "model.onnx").unlink(), {}, "model.onnx", Exit.DATA),
        (lambda bundle: None, {"precision": "int8"}, "has no int8 file: expected fp32", Exit.USAGE),
        (lambda bundle: None, {"provider": "tpu"}, "tpu", Exit.USAGE),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    damage: Callable[[Path], object], options: dict[str, Any], message: str, code: Exit, bundle: Path, tmp_path: Path
) -> None:
    import shutil

    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    damage(damaged)
    with pytest.raises(CnnbenchError, match=message) as refused:
        cnnbench.load(damaged, **options)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)


def test_a_folder_that_does_not_exist_is_no_bundle() -> None:
    with pytest.raises(CnnbenchError, match="/nope does not exist"):
        cnnbench.load("/nope")
