"""Shifts go where they say, are scored as `test` scored, and feature maps are compared with what arithmetic says."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cnnbench import records
from cnnbench.architectures import build
from cnnbench.bench import robustness
from cnnbench.bench.robustness import (
    SHIFTS,
    correct_by_shift,
    equivariance,
    feature_maps,
    find_tested_runs,
    measure_robustness,
    shift,
    stored_robustness,
)
from cnnbench.records.schema import Robustness, RunRecord
from cnnbench.types import CnnbenchError, Exit, ImageSpec, Split

SPEC = ImageSpec(24, 24, 1, num_classes=2)
IMAGES = np.random.RandomState(0).randint(0, 256, (40, 24, 24, 1), dtype=np.uint8)


def test_dx_moves_right_and_dy_moves_down_and_zeros_move_in() -> None:
    image = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8)[None, :, :, None]
    right = shift(image, dx=1, dy=0)
    assert right.dtype == torch.uint8
    assert right[0, :, :, 0].tolist() == [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    assert shift(image, dx=0, dy=1)[0, :, :, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert shift(image, dx=-1, dy=-2)[0, :, :, 0].tolist() == [[8, 9, 0], [0, 0, 0], [0, 0, 0]]


@given(st.sampled_from(SHIFTS), st.sampled_from(SHIFTS), st.integers(1, 3), st.integers(5, 9), st.integers(5, 9))
def test_shifts_are_scipys(dx: int, dy: int, channels: int, height: int, width: int) -> None:
    images = np.random.RandomState(0).randint(0, 256, (2, height, width, channels), dtype=np.uint8)
    expected = scipy.ndimage.shift(images, (0, dy, dx, 0), order=0, mode="constant", cval=0)
    np.testing.assert_array_equal(shift(torch.from_numpy(images), dx=dx, dy=dy).numpy(), expected)


class Where(nn.Module):
    """Answers 1 where the pixel at a row and a column is lit."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, pixels: Tensor) -> Tensor:
        lit = pixels[:, 0, self.row, self.column]
        return torch.stack([0.5 - lit, lit - 0.5], dim=1)


def test_the_map_has_dy_in_its_rows_and_dx_in_its_columns() -> None:
    """The one lit pixel arrives where the network looks only after a shift by 3 to the right and 2 up."""
    images = np.zeros((3, 24, 24, 1), dtype=np.uint8)
    images[:, 10, 10] = 255
    correct = correct_by_shift(Where(row=8, column=13), Split(images, np.ones(3, dtype=np.int64)))
    expected = np.zeros((9, 9), dtype=int)
    expected[SHIFTS.index(-2), SHIFTS.index(3)] = 3
    np.testing.assert_array_equal(correct, expected)


def test_images_beyond_a_batch_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = correct_by_shift(Where(0, 0), Split(IMAGES, np.zeros(40, dtype=np.int64)))
    monkeypatch.setattr(robustness, "EVAL_BATCH_SIZE", 7)
    np.testing.assert_array_equal(correct_by_shift(Where(0, 0), Split(IMAGES, np.zeros(40, dtype=np.int64))), whole)
    assert whole.max() > 7


def with_head(*layers: nn.Module, features: int = 1) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 2)).eval()


@pytest.mark.parametrize("layers", [1, 3])
def test_a_stride_1_convolution_moves_with_the_image(layers: int) -> None:
    """Away from the border, which one place on each side is for a kernel of three; zeros outside are zeros inside."""
    torch.manual_seed(0)
    one = with_head(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(layers)))
    result, reason = equivariance(one, IMAGES, spec=SPEC)
    assert reason == ""
    assert result is not None
    assert (result.layer, result.stride) == (str(layers - 1), 1)
    assert len(result.errors) == 4
    if layers == 1:
        assert result.errors == pytest.approx((0, 0, 0, 0), abs=1e-6)
    else:  # three layers see three pixels of the border, of which one is left out
        assert min(result.errors) > 1e-3


def test_a_network_whose_weights_know_where_they_are_does_not() -> None:
    class Local(nn.Module):
        """Every place has a weight of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0)))

        def forward(self, features: Tensor) -> Tensor:
            return features * self.weight

    result, _ = equivariance(with_head(nn.Conv2d(1, 1, 1), Local()), IMAGES, spec=SPEC)
    assert result is not None
    assert result.layer == "1"
    assert min(result.errors) > 0.5


def subsampling() -> nn.Sequential:
    """Every second pixel, as it is."""
    layer = nn.Conv2d(1, 1, 1, stride=2, bias=False)
    nn.init.ones_(layer.weight)
    return with_head(layer)


def test_every_second_pixel_moves_exactly_by_two_and_the_error_by_one_is_as_computed() -> None:
    result, _ = equivariance(subsampling(), IMAGES, spec=SPEC)
    assert result is not None
    assert result.stride == 2
    assert result.errors[1] == result.errors[3] == 0
    x = IMAGES[:, ::2, :, 0] / 255
    # at column j of the image, maps repeated: F(x) moved by d has pixel 2 * ((j - d) // 2), F(T x) 2 * (j // 2) - d
    for d in (1, 3):
        columns = np.arange(d + 2, 24 - d - 2)
        moved, after = x[:, :, 2 * ((columns - d) // 2)], x[:, :, 2 * (columns // 2) - d]
        expected = np.sqrt(((moved - after) ** 2).sum() / (moved**2).sum())
        assert result.errors[d - 1] == pytest.approx(expected, rel=1e-6)
        assert expected > 0.1


def test_a_fully_connected_network_has_no_feature_maps() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(576, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    assert equivariance(network, IMAGES, spec=SPEC) == (None, "no feature maps: every unit sees the whole image")
    assert feature_maps(build("mlp", SPEC), SPEC) == []  # what normalises comes before any convolution


def test_maps_with_no_columns_between_their_borders_have_a_reason() -> None:
    result, reason = equivariance(with_head(nn.Conv2d(1, 1, 8, stride=8)), IMAGES, spec=SPEC)
    assert result is None
    assert reason == "no feature map has columns left between its borders; the widest has 3"


def test_a_map_of_zeros_has_no_error() -> None:
    result, reason = equivariance(with_head(nn.Conv2d(1, 1, 3), nn.Threshold(1e9, 0)), IMAGES, spec=SPEC)
    assert (result, reason) == (None, "the feature map of 1 is zero everywhere")


def test_the_map_is_read_before_a_later_layer_changes_it_in_place() -> None:
    torch.manual_seed(0)
    plain = with_head(nn.Conv2d(1, 4, 1), features=4)
    in_place = with_head(plain[0], nn.ReLU(inplace=True), features=4)
    layer, images = robustness.FeatureMap("0", columns=24, stride=1), torch.from_numpy(IMAGES)
    with torch.inference_mode():
        expected, result = (robustness.upsampled_map(network, images, layer=layer) for network in (plain, in_place))
    assert expected.min() < 0
    torch.testing.assert_close(result, expected)


def test_of_a_module_that_runs_on_several_maps_the_chosen_one_is_read() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.pool = nn.Conv2d(1, 1, 1), nn.Tanh(), nn.MaxPool2d(12)

        def forward(self, pixels: Tensor) -> Tensor:
            first = self.act(self.conv(pixels))  # N, 1, 24, 24
            return self.act(self.pool(first)).flatten(1)  # N, 4

    torch.manual_seed(0)
    result, _ = equivariance(Reused().eval(), IMAGES, spec=SPEC)
    assert result is not None
    assert (result.layer, result.stride) == ("act", 1)
    assert result.errors == pytest.approx((0, 0, 0, 0), abs=1e-6)


@pytest.mark.parametrize(
    ("arch", "name", "columns", "stride"),
    [("lenet5", "1.6", 5, 4), ("resnet20", "1.9", 7, 4), ("inception_small", "1.6", 7, 4), ("vgg11", "1.14", 3, 8)],
)
def test_the_last_map_of_real_networks(arch: str, name: str, columns: int, stride: int) -> None:
    """LeNet-5 pools twice without padding (LeCun 1998: 5 x 5 at the end); ResNet-20 strides twice, VGG pools thrice."""
    spec = ImageSpec(28, 28, 1, num_classes=10)
    with torch.device("meta"):
        last = feature_maps(build(arch, spec), spec)[-1]
    assert (last.name, last.columns, last.stride) == (name, columns, stride)


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("googlenet", marks=pytest.mark.slow),
        "vgg11_bn",
        "fastnet",
        "torchvision/resnet18",
    ],
)
def test_convolutional_networks_have_an_error_at_every_shift(arch: str) -> None:
    torch.manual_seed(0)
    spec = ImageSpec(32, 32, 3, num_classes=10)
    images = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    result, reason = equivariance(build(arch, spec).eval(), images, spec=spec)
    assert reason == ""
    assert result is not None
    assert all(0 < error < 10 for error in result.errors)


@pytest.fixture
def mine(run: Path, tmp_path: Path) -> Path:
    """A run of this test's own."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "mnist5k_lenet5" / "seed1"))


@pytest.fixture(scope="session")
def measured(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Robustness]:
    """`run` measured on 100 images, in a copy."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("robust") / "seed1"))
    return folder, measure_robustness(folder, images=100)


def test_a_real_run_is_measured_and_written(measured: tuple[Path, Robustness], run: Path) -> None:
    folder, result = measured
    record = records.read(run / "result.json", RunRecord)
    assert records.read(folder / "robustness.json", Robustness) == result
    assert (result.task, result.arch, result.dataset, result.seed) == ("mnist5k_lenet5", "lenet5", "mnist5k", 1)
    assert result.images == 100
    assert result.checkpoint_sha256 == records.sha256(run / "best.ckpt")
    assert result.shifts == SHIFTS == (-4, -3, -2, -1, 0, 1, 2, 3, 4)
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    chosen = [int(i * 499 / 99) for i in range(100)]  # of 500 that are sorted by class
    assert {table["label"][i] for i in chosen} == set(range(10))
    assert result.accuracy[4][4] == sum(table["label"][i] == table["prediction"][i] for i in chosen) / 100
    assert record.test is not None
    assert result.worst < result.accuracy[4][4]  # two epochs do not teach digits in the corner
    assert result.equivariance is not None
    assert (result.equivariance.layer, result.equivariance.stride) == ("1.6", 4)


def test_a_stored_record_counts_for_its_checkpoint_and_number_of_images(
    measured: tuple[Path, Robustness], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(measured[0], tmp_path / "seed1"))
    assert stored_robustness(folder, images=100) == measured[1]
    assert stored_robustness(folder, images=200) is None
    records.write(folder / "robustness.json", records.replace(measured[1], images=500))
    assert stored_robustness(folder, images=2000) is not None  # there are no more than 500
    records.write(folder / "robustness.json", records.replace(measured[1], checkpoint_sha256="0" * 64))
    assert stored_robustness(folder, images=100) is None
    (folder / "robustness.json").unlink()
    assert stored_robustness(folder, images=100) is None


def spoil(run: Path, right: int) -> None:
    """Make the stored predictions wrong for some images that were right, of the 100 that are looked at."""
    table = pq.read_table(run / "predictions.parquet")
    columns = table.to_pydict()
    places = [i for i in (int(i * 499 / 99) for i in range(100)) if columns["label"][i] == columns["prediction"][i]]
    for place in places[:right]:
        other = (columns["prediction"][place] + 1) % 10
        columns["prediction"][place] = other
        columns["probabilities"][place] = [float(k == other) for k in range(10)]
    pq.write_table(type(table).from_pydict(columns, schema=table.schema), run / "predictions.parquet")


def test_predictions_that_contradict_the_unshifted_images_are_refused(mine: Path) -> None:
    spoil(mine, right=1)
    assert "of 100 unshifted images" in refused(mine)
    assert not (mine / "robustness.json").exists()


@pytest.mark.slow
def test_rounding_may_change_one_in_a_hundred_where_test_was_not_in_float32_on_the_cpu(mine: Path) -> None:
    record = records.read(mine / "result.json", RunRecord)
    assert record.test is not None
    records.write(mine / "result.json", records.replace(record, test=records.replace(record.test, logits_sha256=None)))
    spoil(mine, right=1)
    assert measure_robustness(mine, images=100).images == 100
    spoil(mine, right=1)
    assert "of 100 unshifted images" in refused(mine)


def test_other_labels_than_the_data_s_are_refused(mine: Path) -> None:
    table = pq.read_table(mine / "predictions.parquet")
    columns = table.to_pydict()
    columns["label"][0] = (columns["label"][0] + 1) % 10
    pq.write_table(type(table).from_pydict(columns, schema=table.schema), mine / "predictions.parquet")
    assert "other labels" in refused(mine)


def test_a_checkpoint_that_was_not_tested_is_refused(mine: Path) -> None:
    record = records.read(mine / "result.json", RunRecord)
    assert record.test is not None
    for test in (None, records.replace(record.test, checkpoint_sha256="0" * 64)):
        records.write(mine / "result.json", records.replace(record, test=test))
        assert "is not what was tested: run `cnnbench test` first" in refused(mine)


def test_less_than_one_image_is_a_usage_error(run: Path) -> None:
    with pytest.raises(CnnbenchError, match="--images 0: expected at least 1") as caught:
        measure_robustness(run, images=0)
    assert caught.value.code == Exit.USAGE


def refused(run: Path) -> str:
    with pytest.raises(CnnbenchError) as caught:
        measure_robustness(run, images=100)
    assert caught.value.code == Exit.DATA
    return str(caught.value)


def test_runs_are_found_by_name_and_below_folders_once(mine: Path, tmp_path: Path) -> None:
    record = records.read(mine / "result.json", RunRecord)
    second = Path(shutil.copytree(mine, mine.parent / "seed2"))
    untested = Path(shutil.copytree(mine, mine.parent / "seed3"))
    records.write(untested / "result.json", records.replace(record, test=None))
    shutil.copytree(mine, mine.parent / "seed4.replaced")
    (mine.parent / "seed5").mkdir()
    assert find_tested_runs([str(tmp_path / "runs")]) == [mine, second]
    assert find_tested_runs([str(second), str(mine.parent)]) == [second, mine]
    for path, words in (
        (untested, "run `cnnbench test` first"),
        (tmp_path / "nowhere", "expected the folder of a run"),
    ):
        with pytest.raises(CnnbenchError, match=words) as caught:
            find_tested_runs([str(path)])
        assert caught.value.code == Exit.DATA
