"""Forward and backward of convolution and pooling in NumPy, held against autograd.

Deep learning's convolution is cross-correlation. For Z = W * A + b with the loss gradient dZ: dW is the
cross-correlation of A with dZ, db the sum of dZ, and dA the full cross-correlation of dZ with W turned by 180 degrees;
a stride of s first puts s - 1 zeros between the elements of dZ.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from cnnbench import pictures
from cnnbench.lab import Lesson, Numbers, lesson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray


def correlate(a: Array, w: Array) -> Array:
    """Valid cross-correlation: a `(N, C, H, W)`, w `(O, C, k, l)` -> `(N, O, H - k + 1, W - l + 1)`."""
    windows = np.lib.stride_tricks.sliding_window_view(a, w.shape[2:], axis=(2, 3))  # N, C, H', W', k, l
    return np.asarray(np.einsum("nchwkl,ockl->nohw", windows, w))


def pad(a: Array, rows: int, columns: int | None = None) -> Array:
    """Zeros around the maps: `rows` above and below, `columns` (by default as many) left and right."""
    columns = rows if columns is None else columns
    return np.pad(a, ((0, 0), (0, 0), (rows, rows), (columns, columns)))


def conv_forward(a: Array, w: Array, b: Array, stride: int, padding: int) -> Array:
    """Z = W * A + b. a `(N, C, H, W)`, w `(O, C, k, l)`, b `(O,)` -> `(N, O, H', W')`."""
    return np.asarray(correlate(pad(a, padding), w)[:, :, ::stride, ::stride] + b[:, None, None])


def conv_backward(dz: Array, a: Array, w: Array, stride: int, padding: int) -> tuple[Array, Array, Array]:
    """dA, dW and db of `conv_forward`, from dz `(N, O, H', W')`."""
    k, m = w.shape[2:]
    padded = pad(a, padding)
    rows, columns = padded.shape[2] - k + 1, padded.shape[3] - m + 1
    dilated = np.zeros((*dz.shape[:2], rows, columns), dtype=dz.dtype)
    dilated[:, :, ::stride, ::stride] = dz
    dw = correlate(padded.swapaxes(0, 1), dilated.swapaxes(0, 1)).swapaxes(0, 1)  # O, C, k, l
    turned = w[:, :, ::-1, ::-1].swapaxes(0, 1)  # C, O, k, l
    da = correlate(pad(dilated, k - 1, m - 1), turned)
    return da[:, :, padding : padding + a.shape[2], padding : padding + a.shape[3]], dw, dz.sum(axis=(0, 2, 3))


def max_pool(a: Array, size: int) -> tuple[Array, Array]:
    """The maximum of each window of `size` x `size`, and the mask `(N, C, H, W)` of where it was."""
    n, c, h, w = a.shape
    windows = a.reshape(n, c, h // size, size, w // size, size)
    flat = windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // size, w // size, size * size)
    mask = np.arange(size * size) == flat.argmax(axis=-1)[..., None]  # of equal ones the first, as torch has it
    mask = mask.reshape(n, c, h // size, w // size, size, size).transpose(0, 1, 2, 4, 3, 5)
    return flat.max(axis=-1), mask.reshape(a.shape)


def spread(dz: Array, size: int) -> Array:
    """Each element repeated over its window: what both poolings' backward passes begin with."""
    return dz.repeat(size, axis=2).repeat(size, axis=3)


@lesson(name="backprop", order=6)
def backprop() -> Lesson:
    """A NumPy reference of convolution and pooling, forward and backward, against autograd."""
    random = np.random.RandomState(0)
    cases = list(product((1, 2, 3), (0, 1, 2), (1, 2, 3, 5), (1, 3)))
    errors: dict[str, list[float]] = {"Z": [], "dA": [], "dW": [], "db": []}
    for stride, padding, kernel, channels in cases:
        a = random.randn(2, channels, 9, 8)
        w, b = random.randn(4, channels, kernel, kernel), random.randn(4)
        for name, error in _compared(a, w, b, stride, padding, random).items():
            errors[name].append(error)
    oblong = _compared(random.randn(2, 3, 9, 8), random.randn(4, 3, 3, 5), random.randn(4), 1, 2, random)
    poolings = _poolings(random.randn(2, 3, 8, 8))
    activation = _behind_relu(random)
    worst = {name: max(values) for name, values in errors.items()}
    claims = [
        (
            f"Z, dA, dW and db agree with autograd in float64 to 1e-10 for {len(cases)} combinations of stride, "
            f"padding, kernel and channels: at most {max(worst.values()):.1e}",
            max(worst.values()) < 1e-10,
        ),
        (f"They agree for a kernel that is not square: {max(oblong.values()):.1e}", max(oblong.values()) < 1e-10),
        (f"Behind a ReLU the gradient passes where Z was positive: {activation:.1e}", activation < 1e-10),
        (
            f"Max pooling's mask and average pooling's even share agree with autograd: {max(poolings.values()):.1e}",
            max(poolings.values()) < 1e-10,
        ),
    ]
    rows = [
        {"what": name, "rule": rule, "largest error": worst[name]}
        for name, rule in (
            ("Z", "cross-correlation of A with W, plus b"),
            ("dA", "full cross-correlation of the dilated dZ with W turned by 180 degrees"),
            ("dW", "cross-correlation of A with the dilated dZ"),
            ("db", "sum of dZ"),
        )
    ]
    rows += [{"what": name, "rule": POOLINGS[name], "largest error": error} for name, error in poolings.items()]
    return Lesson(
        "Backpropagation through one layer",
        "Written out in NumPy with nothing but sliding windows, on random numbers.",
        claims,
        [Numbers("Largest difference from autograd", rows)],
        _figure(),
        "A gradient, the same with zeros between, the turned kernel, and what comes back to the image",
    )


def _compared(
    a: Array, w: Array, b: Array, stride: int, padding: int, random: np.random.RandomState
) -> dict[str, float]:
    """Largest differences of output and gradients from torch's."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in (a, w, b)]
    z = F.conv2d(tensors[0], tensors[1], tensors[2], stride=stride, padding=padding)
    dz = random.randn(*z.shape)
    theirs = torch.autograd.grad(z, tensors, torch.from_numpy(dz))
    ours = conv_backward(dz, a, w, stride, padding)
    errors = {"Z": _error(conv_forward(a, w, b, stride, padding), z)}
    return errors | {name: _error(x, y) for name, x, y in zip(("dA", "dW", "db"), ours, theirs, strict=True)}


def _poolings(a: Array) -> dict[str, float]:
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


POOLINGS = {
    "max pooling, Z": "the largest of each window",
    "max pooling, dA": "dZ where the largest was: the mask of the forward pass",
    "average pooling, dA": "dZ / 4, spread over the window",
}


def _behind_relu(random: np.random.RandomState) -> float:
    """dA through A' = ReLU(W * A + b)."""
    a, w, b = random.randn(2, 3, 6, 6), random.randn(4, 3, 3, 3), random.randn(4)
    x = torch.from_numpy(a).requires_grad_()
    out = F.relu(F.conv2d(x, torch.from_numpy(w), torch.from_numpy(b), padding=1))
    above = random.randn(*out.shape)
    (theirs,) = torch.autograd.grad(out, x, torch.from_numpy(above))
    dz = above * (conv_forward(a, w, b, stride=1, padding=1) > 0)
    return _error(conv_backward(dz, a, w, stride=1, padding=1)[0], theirs)


def _error(ours: Array, theirs: torch.Tensor) -> float:
    return float(np.abs(ours - theirs.detach().numpy()).max())


def _figure() -> Figure:
    dz = np.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    w = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    a = np.zeros((1, 1, 5, 5))
    da, _, _ = conv_backward(dz, a, w, stride=2, padding=0)
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
