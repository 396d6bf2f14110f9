"""Forward and backward of convolution and pooling in NumPy, compared with autograd.

Deep learning's convolution is cross-correlation. For Z = W * A + b with the loss gradient dZ: dW is the
cross-correlation of A with dZ, db the sum of dZ, and dA the full cross-correlation of dZ with W rotated by 180 degrees;
a stride of s first puts s - 1 zeros between the elements of dZ.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray
Errors = dict[str, float]
"""Largest absolute difference from autograd, by quantity."""

CASES = tuple(product((1, 2, 3), (0, 1, 2), (1, 2, 3, 5), (1, 3)))
"""Stride, padding, kernel and channels of the compared convolutions."""

RULES = {
    "Z": "cross-correlation of A with W, plus b",
    "dA": "full cross-correlation of the dilated dZ with W turned by 180 degrees",
    "dW": "cross-correlation of A with the dilated dZ",
    "db": "sum of dZ",
}
POOLINGS = {
    "max pooling, Z": "the largest of each window",
    "max pooling, dA": "dZ where the largest was: the mask of the forward pass",
    "average pooling, dA": "dZ / 4, spread over the window",
}
TOLERANCE = 1e-10


def correlate(a: Array, w: Array) -> Array:
    """Valid cross-correlation: a `(N, C, H, W)`, w `(O, C, k, l)` -> `(N, O, H - k + 1, W - l + 1)`."""
    windows = np.lib.stride_tricks.sliding_window_view(a, w.shape[2:], axis=(2, 3))  # N, C, H', W', k, l
    return np.asarray(np.einsum("nchwkl,ockl->nohw", windows, w))


def pad(a: Array, *, rows: int, columns: int | None = None) -> Array:
    """Zeros around the maps: `rows` above and below, `columns` (by default as many) left and right."""
    columns = rows if columns is None else columns
    return np.pad(a, ((0, 0), (0, 0), (rows, rows), (columns, columns)))


@dataclass(frozen=True)
class Convolution:
    """Z = W * A + b with a stride and a padding, forward and backward. w `(O, C, k, l)`, b `(O,)`."""

    w: Array
    b: Array
    stride: int = 1
    padding: int = 0

    def forward(self, a: Array) -> Array:
        """Z `(N, O, H', W')` of a `(N, C, H, W)`."""
        full = correlate(pad(a, rows=self.padding), self.w)
        return np.asarray(full[:, :, :: self.stride, :: self.stride] + self.b[:, None, None])

    def backward(self, dz: Array, a: Array) -> tuple[Array, Array, Array]:
        """dA, dW and db, from dz `(N, O, H', W')` and a `(N, C, H, W)`."""
        k, m = self.w.shape[2:]
        p = self.padding
        padded = pad(a, rows=p)
        dilated = self._dilated(dz, rows=padded.shape[2] - k + 1, columns=padded.shape[3] - m + 1)
        dw = correlate(padded.swapaxes(0, 1), dilated.swapaxes(0, 1)).swapaxes(0, 1)  # O, C, k, l
        rotated = self.w[:, :, ::-1, ::-1].swapaxes(0, 1)  # C, O, k, l
        da = correlate(pad(dilated, rows=k - 1, columns=m - 1), rotated)
        return da[:, :, p : p + a.shape[2], p : p + a.shape[3]], dw, dz.sum(axis=(0, 2, 3))

    def _dilated(self, dz: Array, rows: int, columns: int) -> Array:
        """`dz` with stride - 1 zeros between its elements, `(N, O, rows, columns)`."""
        dilated = np.zeros((*dz.shape[:2], rows, columns), dtype=dz.dtype)
        dilated[:, :, :: self.stride, :: self.stride] = dz
        return dilated


def max_pool(a: Array, size: int) -> tuple[Array, Array]:
    """The maximum of each window of `size` x `size`, and the mask `(N, C, H, W)` of its position."""
    n, c, h, w = a.shape
    windows = a.reshape(n, c, h // size, size, w // size, size)
    flat = windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // size, w // size, size * size)
    mask = np.arange(size * size) == flat.argmax(axis=-1)[..., None]  # among equal values the first, as in torch
    mask = mask.reshape(n, c, h // size, w // size, size, size).transpose(0, 1, 2, 4, 3, 5)
    return flat.max(axis=-1), mask.reshape(a.shape)


def spread(dz: Array, size: int) -> Array:
    """Each element repeated over its window: the first step of both poolings' backward passes."""
    return dz.repeat(size, axis=2).repeat(size, axis=3)


@dataclass(frozen=True)
class Measured:
    """Largest differences from autograd."""

    square: Errors
    """Over all `CASES`."""
    oblong: Errors
    """For a kernel that is not square."""
    poolings: Errors
    relu: float


@lesson(name="backprop", order=6)
def backprop() -> Lesson:
    """A NumPy reference of convolution and pooling, forward and backward, against autograd."""
    measured = _measure()
    rows: list[Row] = [
        {"what": name, "rule": (RULES | POOLINGS)[name], "largest error": error}
        for name, error in (measured.square | measured.poolings).items()
    ]
    return Lesson(
        "Backpropagation through one layer",
        "Written out in NumPy with nothing but sliding windows, on random numbers.",
        _claims(measured),
        [Numbers("Largest difference from autograd", rows)],
        _draw(),
        "A gradient, the same with zeros between, the turned kernel, and what comes back to the image",
    )


def _measure() -> Measured:
    random = np.random.RandomState(0)
    errors: list[Errors] = []
    for stride, padding, kernel, channels in CASES:
        a = random.randn(2, channels, 9, 8)
        w, b = random.randn(4, channels, kernel, kernel), random.randn(4)
        errors.append(_convolution_errors(Convolution(w, b, stride, padding), a, random))
    square = {name: max(error[name] for error in errors) for name in RULES}
    a, w, b = random.randn(2, 3, 9, 8), random.randn(4, 3, 3, 5), random.randn(4)
    oblong = _convolution_errors(Convolution(w, b, padding=2), a, random)
    return Measured(square, oblong, _pooling_errors(random.randn(2, 3, 8, 8)), _relu_error(random))


def _claims(measured: Measured) -> list[Claim]:
    worst, oblong = max(measured.square.values()), max(measured.oblong.values())
    poolings = max(measured.poolings.values())
    return [
        Claim(
            f"Z, dA, dW and db agree with autograd in float64 to 1e-10 for {len(CASES)} combinations of stride, "
            f"padding, kernel and channels: at most {worst:.1e}",
            worst < TOLERANCE,
        ),
        Claim(f"They agree for a kernel that is not square: {oblong:.1e}", oblong < TOLERANCE),
        Claim(
            f"Behind a ReLU the gradient passes where Z was positive: {measured.relu:.1e}", measured.relu < TOLERANCE
        ),
        Claim(
            f"Max pooling's mask and average pooling's even share agree with autograd: {poolings:.1e}",
            poolings < TOLERANCE,
        ),
    ]


def _convolution_errors(layer: Convolution, a: Array, random: np.random.RandomState) -> Errors:
    """Largest differences of output and gradients from torch's."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in (a, layer.w, layer.b)]
    z = F.conv2d(tensors[0], tensors[1], tensors[2], stride=layer.stride, padding=layer.padding)
    dz = random.randn(*z.shape)
    expected = torch.autograd.grad(z, tensors, torch.from_numpy(dz))
    gradients = zip(("dA", "dW", "db"), layer.backward(dz, a), expected, strict=True)
    return {"Z": _error(layer.forward(a), z)} | {name: _error(x, y) for name, x, y in gradients}


def _pooling_errors(a: Array) -> Errors:
    x = torch.from_numpy(a).requires_grad_()
    dz = np.random.RandomState(1).randn(2, 3, 4, 4)
    out, mask = max_pool(a, 2)
    max_z, mean_z = F.max_pool2d(x, 2), F.avg_pool2d(x, 2)
    (by_max,) = torch.autograd.grad(max_z, x, torch.from_numpy(dz))
    (by_mean,) = torch.autograd.grad(mean_z, x, torch.from_numpy(dz))
    return {
        "max pooling, Z": _error(out, max_z),
        "max pooling, dA": _error(spread(dz, 2) * mask, by_max),
        "average pooling, dA": _error(spread(dz, 2) / 4, by_mean),
    }


def _relu_error(random: np.random.RandomState) -> float:
    """Largest difference of dA through A' = ReLU(W * A + b)."""
    a, w, b = random.randn(2, 3, 6, 6), random.randn(4, 3, 3, 3), random.randn(4)
    x = torch.from_numpy(a).requires_grad_()
    out = F.relu(F.conv2d(x, torch.from_numpy(w), torch.from_numpy(b), padding=1))
    d_out = random.randn(*out.shape)
    (expected,) = torch.autograd.grad(out, x, torch.from_numpy(d_out))
    layer = Convolution(w, b, padding=1)
    return _error(layer.backward(d_out * (layer.forward(a) > 0), a)[0], expected)


def _error(array: Array, tensor: torch.Tensor) -> float:
    return float(np.abs(array - tensor.detach().numpy()).max())


def _draw() -> Figure:
    dz = np.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    w = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    da, _, _ = Convolution(w, np.zeros(1), stride=2).backward(dz, np.zeros((1, 1, 5, 5)))
    dilated = np.zeros((3, 3))
    dilated[::2, ::2] = dz[0, 0]
    figure, panels = pictures.new(11.5, 3.6, panels=4)
    figure.suptitle("Backward through a 3x3 convolution of stride 2")
    parts = {
        "dZ": dz[0, 0],
        "zeros between, for the stride": dilated,
        "W turned by 180 degrees": w[0, 0, ::-1, ::-1],
        "dA: full cross-correlation": da[0, 0],
    }
    for axes, (title, values) in zip(panels, parts.items(), strict=True):
        axes.set_axis_off()
        axes.imshow(values, cmap="Blues", vmax=1.6 * values.max())
        axes.set_title(title, fontsize=11)
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:g}", ha="center", va="center")
    return figure
