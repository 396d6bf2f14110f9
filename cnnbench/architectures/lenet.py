"""LeNet-5: convolution, pooling, full connection.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.architectures import architecture
from cnnbench.types import ImageSpec

SIDE = 32
"""LeNet-5's input: the paper pads its 28 x 28 digits to this, so that strokes can lie in a kernel's centre."""


class PadTo(nn.Module):
    """Zeros around images smaller than `side`: `(N, C, H, W)` -> `(N, C, max(H, side), max(W, side))`.

    Zero here is the training set's mean, since pixels are normalised before.
    """

    def __init__(self, spec: ImageSpec, side: int) -> None:
        super().__init__()
        rows, columns = max(0, side - spec.height), max(0, side - spec.width)
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(images, self.padding)


def lenet(spec: ImageSpec, *, activation: Callable[[], nn.Module], pool: Callable[[int], nn.Module]) -> nn.Sequential:
    """LeNet-5 with every map of the second convolution connected to every map of the first.

    The paper's sparse table of connections and its radial basis output are not reproduced.
    """
    rows, columns = ((max(side, SIDE) - 4) // 2 for side in (spec.height, spec.width))
    rows, columns = (rows - 4) // 2, (columns - 4) // 2
    return nn.Sequential(  # shapes for a 32 x 32 input
        PadTo(spec, SIDE),  # N, C, 32, 32
        nn.Conv2d(spec.channels, 6, kernel_size=5),  # N, 6, 28, 28
        activation(),
        pool(2),  # N, 6, 14, 14
        nn.Conv2d(6, 16, kernel_size=5),  # N, 16, 10, 10
        activation(),
        pool(2),  # N, 16, 5, 5
        nn.Flatten(),  # N, 400
        nn.Linear(16 * rows * columns, 120),
        activation(),
        nn.Linear(120, 84),
        activation(),
        nn.Linear(84, spec.num_classes),  # N, num_classes
    )


@architecture(params=62_006, macs=651_720)
def lenet5(spec: ImageSpec) -> nn.Module:
    """The classic of 1998: tanh and average pooling."""
    return lenet(spec, activation=nn.Tanh, pool=nn.AvgPool2d)


@architecture(params=62_006, macs=651_720)
def lenet5_relu(spec: ImageSpec) -> nn.Module:
    """LeNet-5 in its modern form: ReLU and max pooling, the same parameters."""
    return lenet(spec, activation=nn.ReLU, pool=nn.MaxPool2d)
