"""Names come from the source, from nowhere else, and without importing what they name."""

import ast
import functools
import importlib
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnnbench.architectures import Architectures, architecture, build
from cnnbench.datasets import dataset
from cnnbench.registry import Registry, fault_of, hint, say_left_out
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(4, 4, 1, 7)

both = pytest.mark.parametrize("registry", [architecture, dataset], ids=lambda registry: registry.kind)


def marked(registry: Registry) -> dict[str, Callable[..., Any]]:
    """The functions that carry the decorator's mark once every module is imported."""
    folder = importlib.import_module(registry.package).__path__
    modules = [importlib.import_module(f"{registry.package}.{info.name}") for info in pkgutil.iter_modules(folder)]
    functions = [f for m in modules for f in vars(m).values() if hasattr(f, "declared") and f.__module__ == m.__name__]
    return {function.__name__: function for function in functions}


@both
def test_names_read_from_source_are_those_that_importing_marks(registry: Registry) -> None:
    assert list(registry) == sorted(marked(registry))
    assert {name: registry[name].load() for name in registry} == marked(registry)


@both
def test_literals_read_from_source_are_those_declared(registry: Registry) -> None:
    for name, builder in marked(registry).items():
        declared = registry[name].declared
        assert declared == {key: builder.declared[key] for key in declared}  # type: ignore[attr-defined]


@both
def test_every_name_has_a_summary_from_its_docstring(registry: Registry) -> None:
    for name, builder in marked(registry).items():
        assert registry[name].summary == (builder.__doc__ or "").strip().splitlines()[0]


def test_every_architecture_declares_its_cost_as_a_literal() -> None:
    for name in marked(architecture):
        assert {"params", "macs"} <= set(architecture[name].declared)


@pytest.mark.parametrize("module", ["cnnbench", "cnnbench.types", "cnnbench.records", "cnnbench.tasks"])
def test_light_modules_import_no_torch(module: str) -> None:
    assert not heavy_after(f"import {module}")


def test_finding_names_imports_no_torch() -> None:
    assert not heavy_after(
        "from cnnbench.architectures import architecture; from cnnbench.datasets import dataset; "
        "assert [*architecture] and [*dataset] and architecture['lenet5'].declared"
    )


def heavy_after(code: str) -> list[str]:
    code += "; import sys; print(*{'torch', 'torchvision', 'lightning', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_this_package_builds_is_ours_and_other_libraries_networks_are_not() -> None:
    assert all(registry[name].ours for registry in (architecture, dataset) for name in marked(registry))
    assert not architecture["torchvision/alexnet"].ours


def test_an_unknown_name_is_a_usage_error_with_the_nearest_names() -> None:
    with pytest.raises(CnnbenchError, match=r"unknown architecture 'resnet81': did you mean resnet18\?") as refused:
        architecture["resnet81"]
    assert refused.value.code == Exit.USAGE


def test_a_name_near_to_none_lists_all() -> None:
    with pytest.raises(CnnbenchError, match=f"expected one of {', '.join(dataset)}"):
        dataset["%"]


def test_a_hint_is_the_nearest_words_nearest_first() -> None:
    assert hint("lenet", ["mlp", "lenet5", "alexnet"]) == "did you mean lenet5 or alexnet?"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package `zoo_for_tests` of one module that marks `one` and leaves `other` alone."""
    folder = tmp_path / "zoo_for_tests"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "first.py").write_text(
        'import nowhere\n\n@thing(size=3, made=len("ab"))\ndef one(spec):\n    """The one.\n\n    More."""\n\n'
        "def other(spec): ...\n\n@property\ndef third(spec): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_only_decorated_functions_are_found_with_their_literals(package: Path) -> None:
    entry = Registry("thing", "zoo_for_tests")["one"]
    assert list(Registry("thing", "zoo_for_tests")) == ["one"]
    assert (entry.module, entry.summary, entry.declared) == ("zoo_for_tests.first", "The one.", {"size": 3})


def test_a_name_can_differ_from_the_function_s_and_is_read_without_import(package: Path) -> None:
    (package / "second.py").write_text('import nowhere\n\n@thing(name="a-b", size=2)\ndef two(spec): ...\n')
    entry = Registry("thing", "zoo_for_tests")["a-b"]
    assert list(Registry("thing", "zoo_for_tests")) == ["a-b", "one"]
    assert (entry.name, entry.function, entry.declared) == ("a-b", "two", {"size": 2})
    assert "zoo_for_tests.second" not in sys.modules


def test_a_name_of_its_own_loads_the_function(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "second.py").write_text("@thing(name='a-b')\ndef two(spec): ...\n")
    module = SimpleNamespace(two=print)
    monkeypatch.setitem(sys.modules, "zoo_for_tests.second", module)  # type: ignore[arg-type]
    assert Registry("thing", "zoo_for_tests")["a-b"].load() is print


def test_a_file_that_is_added_is_all_it_takes(package: Path) -> None:
    (package / "second.py").write_text("@thing()\ndef two(spec): ...\n")
    assert list(Registry("thing", "zoo_for_tests")) == ["one", "two"]


def test_a_name_registered_twice_is_our_fault_and_names_both_places(package: Path) -> None:
    (package / "second.py").write_text("@thing()\ndef one(spec): ...\n")
    with pytest.raises(ValueError, match=r"'one' is registered by zoo_for_tests\.first and by zoo_for_tests\.second"):
        list(Registry("thing", "zoo_for_tests"))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Each test writes a module of its own, and hears of it."""
    say_left_out.cache_clear()
    yield
    sys.modules.pop("theirs_for_tests", None)


def install(folder: Path, name: str, target: str = "theirs_for_tests:make") -> None:
    """What pip leaves of a package that offers an architecture."""
    (folder / "theirs_for_tests.py").write_text(
        "from torch import nn\n\ndef make(spec):\n"
        "    size = spec.channels * spec.height * spec.width\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(size, spec.num_classes))\n"
    )
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cnnbench.architectures]\n{name} = {target}\n")


def test_an_installed_package_adds_its_own_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    install(tmp_path, "their_net")
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Registry("architecture", "cnnbench.architectures")
    monkeypatch.setattr(importlib.import_module("cnnbench.architectures"), "architecture", fresh)
    assert fresh["their_net"].summary == "from theirs"
    assert not fresh["their_net"].ours
    assert build("their_net", ImageSpec(4, 4, 1, 7))(torch.zeros(2, 1, 4, 4)).shape == (2, 7)


@pytest.mark.parametrize("name", ["timm/net", "torchvision/alexnet"])
def test_names_with_a_slash_are_those_of_other_libraries_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Architectures("architecture", "cnnbench.architectures")
    assert name not in fresh.entries
    assert f"note: architecture '{name}' of the package theirs is left out: its name is " in capsys.readouterr().err
    assert architecture["torchvision/alexnet"].module == "torchvision"


def test_a_package_with_a_name_of_ours_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "lenet5")
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Registry("architecture", "cnnbench.architectures")
    assert fresh["lenet5"].module == "cnnbench.architectures.lenet"
    assert capsys.readouterr().err == (
        "note: architecture 'lenet5' of the package theirs is left out: the name is that of "
        "cnnbench.architectures.lenet\n"
    )


def test_a_name_of_two_packages_is_refused_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "their_net")
    other = tmp_path / "others-1.0.dist-info"
    shutil.copytree(tmp_path / "theirs-1.0.dist-info", other)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Registry("architecture", "cnnbench.architectures")
    assert fresh["lenet5"].load()
    with pytest.raises(CnnbenchError, match="their_net is registered by others and by theirs") as refused:
        fresh["their_net"].load()
    assert refused.value.code == Exit.ENVIRONMENT
    assert not fresh["their_net"].ours


@pytest.mark.parametrize(
    ("target", "source", "reason"),
    [
        ("theirs_for_tests:make", "raise RuntimeError('no licence')\n", "cannot be loaded: RuntimeError: no licence"),
        ("theirs_for_tests:make", "import sys\nsys.exit('bye')\n", "cannot be loaded: SystemExit: bye"),
        ("theirs_for_tests:make", "def make(\n", "cannot be loaded: SyntaxError: "),
        ("theirs_for_tests:nothing", "", "cannot be loaded: AttributeError: "),
        ("gone_for_tests:make", "", "cannot be loaded: ModuleNotFoundError: No module named 'gone_for_tests'"),
        ("theirs_for_tests", "", "is theirs_for_tests, a module: expected a function"),
    ],
)
def test_an_entry_point_that_cannot_be_used_names_its_package_and_breaks_no_other_name(
    target: str, source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "their_net", target)
    (tmp_path / "theirs_for_tests.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Registry("architecture", "cnnbench.architectures")
    assert fresh["lenet5"].load()
    with pytest.raises(CnnbenchError) as refused:
        fresh["their_net"].load()
    assert str(refused.value).startswith("their_net of the package theirs ")
    assert reason in str(refused.value)
    assert refused.value.code == Exit.ENVIRONMENT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[console_scripts]\nno equals sign\n",
            "the package bad is left out: its entry_points.txt has the line 'no equ",
        ),
        ("[cnnbench.architectures]\nx = !!\n", "architecture 'x' of the package bad is left out: its value is '!!'"),
    ],
    ids=["line", "value"],
)
def test_a_malformed_entry_point_is_left_out_with_a_line_and_breaks_no_other_name(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "their_net")
    bad = tmp_path / "bad-1.0.dist-info"
    bad.mkdir()
    (bad / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (bad / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        fresh = Registry("architecture", "cnnbench.architectures")
        assert fresh["lenet5"].load()
        assert fresh["their_net"].load()
        assert "x" not in fresh.entries
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {said}")


def test_what_a_package_declares_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "their_net", "theirs_for_tests:Nets.make")
    (tmp_path / "theirs_for_tests.py").write_text(
        "import nowhere\nclass Nets:\n    @staticmethod\n    @cnnbench.register_architecture(macs=7, name='x')\n"
        '    def make(spec):\n        """Seven.\n\n        More."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry = Registry("architecture", "cnnbench.architectures")["their_net"]
    assert (entry.summary, entry.declared) == ("Seven. (from theirs)", {"macs": 7})


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of the architectures that forgets what a test registers."""
    return Registry("architecture", "cnnbench.architectures")


def test_a_function_is_registered_at_once_with_or_without_arguments(fresh: Registry) -> None:
    @fresh
    def bare(spec: ImageSpec) -> None:
        """The bare one.

        More.
        """

    @fresh(name="with-name", macs=3)
    def called(spec: ImageSpec) -> None: ...

    assert fresh["bare"].load() is bare
    assert fresh["bare"].summary == "The bare one."
    assert fresh["with-name"].load() is called
    assert fresh["with-name"].declared == {"macs": 3}
    assert not fresh["bare"].ours


def test_a_second_registration_by_the_same_module_replaces_the_first(fresh: Registry) -> None:
    def first(spec: ImageSpec) -> None: ...
    def second(spec: ImageSpec) -> None: ...

    fresh(name="net")(first)
    fresh(name="net")(second)
    assert fresh["net"].load() is second


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lenet5", "there already, of cnnbench.architectures.lenet"),
        ("../x", "names a folder"),
        ("timm/resnet18", "names a folder"),
        (5, "the architecture's name is 5: it names a folder"),
    ],
)
def test_a_name_that_is_taken_or_names_no_folder_cannot_be_registered(fresh: Registry, name: Any, words: str) -> None:
    with pytest.raises(CnnbenchError, match=words) as refused:
        fresh(name=name)(lambda spec: None)
    assert refused.value.code == Exit.USAGE
    assert fresh["lenet5"].module == "cnnbench.architectures.lenet"


@pytest.mark.parametrize("builder", ["net", 3])
def test_what_is_no_function_is_no_builder(builder: object, fresh: Registry) -> None:
    with pytest.raises(CnnbenchError, match="is not a builder of the architecture: expected a function"):
        fresh(builder)  # type: ignore[call-overload]


class Nets:
    """Builders that are no plain functions."""

    def bound(self, spec: ImageSpec) -> str:
        """Of an instance."""
        return f"bound {spec}"

    @classmethod
    def of_class(cls, spec: ImageSpec) -> str:
        """Of the class."""
        return f"of {cls.__name__} {spec}"


@pytest.mark.parametrize("builder", [Nets().bound, Nets.of_class], ids=["method", "class method"])
def test_a_method_is_a_builder_too(builder: Callable[[ImageSpec], str], fresh: Registry) -> None:
    assert fresh(macs=3)(builder) is builder
    entry = fresh[builder.__name__]
    assert (entry.declarations(), entry.load()(SPEC)) == ({"macs": 3}, builder(SPEC))


def test_a_partial_is_of_the_module_of_its_function(fresh: Registry) -> None:
    fresh(name="part")(functools.partial(Nets.of_class, SPEC))
    assert fresh["part"].module == __name__


@pytest.mark.parametrize("name", [None, 5, Nets(), Nets], ids=["None", "5", "an object", "a class"])
def test_what_is_no_name_is_told_how_to_get_one(name: Any) -> None:
    with pytest.raises(CnnbenchError) as refused:
        architecture[name]
    advice = (
        "is not a name: expected the name of an architecture; register a builder with @cnnbench.register_architecture"
    )
    assert str(refused.value).endswith(advice)
    assert "\n" not in str(refused.value)


WRONG = {
    "params='460'": ("params='460'", "expected a whole number from 1 on"),
    "params=-3": ("params=-3", "expected a whole number from 1 on"),
    "params=True": ("params=True", "expected a whole number from 1 on"),
    "parms=460": ("parms", "did you mean params?"),
}


@pytest.mark.parametrize("stated", WRONG)
def test_a_wrong_declaration_is_refused_at_once(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    said, advice = WRONG[stated]
    key, _, value = stated.partition("=")
    with pytest.raises(CnnbenchError) as refused:
        architecture(name="net", **{key: ast.literal_eval(value)})(lambda spec: None)
    assert str(refused.value) == f"the architecture 'net' declares {said}: {advice}"
    assert "net" not in architecture.entries


@pytest.mark.parametrize(
    "declared",
    [
        {"size": 28},
        {"size": "abc"},
        {"classes": "ten"},
        {"classes": 0},
        {"sha256": 5},
        {"sha256": "5"},
        {"splits": "x"},
    ],
    ids=str,
)
def test_a_wrong_declaration_of_a_dataset_is_refused_at_once(declared: dict[str, Any]) -> None:
    ((key, value),) = declared.items()
    with pytest.raises(CnnbenchError, match=f"the dataset 'theirs' declares {key}={value!r}: expected ") as refused:
        dataset(name="theirs", **declared)(lambda source: None)
    assert refused.value.code == Exit.USAGE


@both
def test_what_ours_declare_is_what_can_be_declared(registry: Registry) -> None:
    assert not any(fault_of(entry.declarations(), registry.declarables) for entry in registry.entries.values())


@pytest.mark.parametrize("stated", [*WRONG, "params=len('ab') - 2"])
def test_a_wrong_declaration_of_a_package_is_refused_where_its_name_is_used(
    stated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "their_net")
    (tmp_path / "theirs_for_tests.py").write_text(
        "from cnnbench import register_architecture\n\n"
        f'@register_architecture({stated})\ndef make(spec):\n    """Theirs."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Architectures("architecture", "cnnbench.architectures", declarables=architecture.declarables)
    monkeypatch.setattr(importlib.import_module("cnnbench.architectures"), "architecture", fresh)
    said, advice = WRONG.get(stated, ("params=0", "expected a whole number from 1 on"))
    if stated in WRONG:
        assert fresh["their_net"].summary == f"declares {said}: {advice} (from theirs)"
    assert fresh["their_net"].declared == {}
    with pytest.raises(CnnbenchError) as refused:
        fresh["their_net"].load()
    assert str(refused.value) == f"their_net of the package theirs declares {said}: {advice}"
    assert refused.value.code == Exit.ENVIRONMENT


def test_a_builder_without_a_name_needs_one(fresh: Registry) -> None:
    with pytest.raises(CnnbenchError, match="has no name: give it one with name="):
        fresh(lambda spec: None)

    class Net:
        """A class is a builder, too."""

    assert fresh(Net) is Net
    assert fresh["Net"].load() is Net


def test_importing_a_package_that_decorates_its_entry_point_adds_no_second_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "their_net")
    source = (tmp_path / "theirs_for_tests.py").read_text()
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Registry("architecture", "cnnbench.architectures")
    monkeypatch.setattr(importlib.import_module("cnnbench.architectures"), "architecture", fresh)
    decorated = source.replace("def make", "from cnnbench.architectures import architecture\n@architecture\ndef make")
    (tmp_path / "theirs_for_tests.py").write_text(decorated)
    assert fresh["their_net"].load().declared == {}  # type: ignore[attr-defined]
    assert "make" not in fresh.entries


def test_a_decorated_builder_may_be_re_exported_and_have_siblings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "their_net", "theirs_for_tests:their_net")
    entry_points = tmp_path / "theirs-1.0.dist-info/entry_points.txt"
    entry_points.write_text(entry_points.read_text() + "lenet5 = theirs_for_tests:lenet5\n")
    (tmp_path / "theirs_for_tests").mkdir()
    (tmp_path / "theirs_for_tests/__init__.py").write_text("from .nets import their_net, lenet5\n")
    (tmp_path / "theirs_for_tests/nets.py").write_text(
        "from cnnbench.architectures import architecture\n"
        "@architecture\ndef their_net(spec): ...\n@architecture\ndef lenet5(spec): ...\n"
    )
    (tmp_path / "theirs_for_tests.py").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    fresh = Registry("architecture", "cnnbench.architectures")
    monkeypatch.setattr(importlib.import_module("cnnbench.architectures"), "architecture", fresh)
    assert fresh["their_net"].load().__name__ == "their_net"
    assert fresh["lenet5"].load().__module__ == "cnnbench.architectures.lenet"
    sys.modules.pop("theirs_for_tests.nets", None)
