"""Networks of others, from `list` to `verify`: which are taken whole, which are refused, where and with which words.

    python benchmarks/strangers.py [--only NAME ...] [--images 256]

Each is registered as a notebook would register it, then goes through list, explain, fit, test, export and verify on
mnist5k; a row says how far it came. EXPECTED says what must happen, and the script exits 1 where something else does.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cnnbench
from cnnbench import ImageSpec
from cnnbench.__main__ import main as command

TAKEN = "taken"
EXPECTED: dict[str, str] = {}
"""What `fit` does with each network: TAKEN, or the words with which it refuses."""
BUILDERS: list[Callable[[ImageSpec], nn.Module]] = []


def network(expected: str = TAKEN) -> Callable[[Callable[[ImageSpec], nn.Module]], Callable[[ImageSpec], nn.Module]]:
    """A network of this script."""

    def note(builder: Callable[[ImageSpec], nn.Module]) -> Callable[[ImageSpec], nn.Module]:
        EXPECTED[builder.__name__] = expected
        BUILDERS.append(builder)
        return builder

    return note


def register() -> None:
    """Register every network of this script."""
    for builder in BUILDERS:
        cnnbench.register_architecture(builder)


class Wrapped(nn.Module):
    """A 3x3 convolution and ReLU, `inner`, the mean over positions, and a linear layer."""

    def __init__(self, spec: ImageSpec, inner: nn.Module, channels: int = 8, out: int | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(spec.channels, channels, 3, padding=1)
        self.inner = inner
        self.head = nn.Linear(out or channels, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(F.relu(self.stem(x)))  # N, C, H, W or N, C
        return self.head(x.mean((2, 3)) if x.ndim == 4 else x)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# no function of the image


@network("not a function of the image: at a second call")
def noise_small(spec: ImageSpec) -> nn.Module:
    """Adds a little noise in evaluation, too."""
    return Wrapped(spec, Call(lambda x: x + 0.002 * torch.randn_like(x)))


@network("not a function of the image: beside other images in the batch")
def batch_mean(spec: ImageSpec) -> nn.Module:
    """Subtracts a part of the batch's mean."""
    return Wrapped(spec, Call(lambda x: x - 0.002 * x.mean(0, keepdim=True)))


@network("not a function of the image: beside other images in the batch")
def bn_notrack(spec: ImageSpec) -> nn.Module:
    """Normalises by its batch."""
    return Wrapped(spec, nn.BatchNorm2d(8, track_running_stats=False))


@network("not a function of the image: at another place in the batch")
def place_in_batch(spec: ImageSpec) -> nn.Module:
    """Adds the place in the batch."""
    return Wrapped(spec, Call(lambda x: x + 0.01 * torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)))


@network("not a function of the image: in a batch of 68 images")
def large_batch_mean(spec: ImageSpec) -> nn.Module:
    """Subtracts a part of the batch's mean, of large batches alone."""
    return Wrapped(spec, Call(lambda x: x - 0.1 * x.mean(0, keepdim=True) if len(x) > 16 else x))


@network("not a function of the image: ")
def remembers(spec: ImageSpec) -> nn.Module:
    """Adds a part of what it saw in the call before, in an attribute."""

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last: Tensor | float = 0.0

        def forward(self, x: Tensor) -> Tensor:
            before, self.last = self.last, x.detach().mean()
            return x + 0.1 * before

    return Wrapped(spec, Remembers())


@network("not a function of the image: it changes its buffer inner.calls")
def counts_calls(spec: ImageSpec) -> nn.Module:
    """Counts its calls in a buffer."""

    class Counts(nn.Module):
        calls: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x

    return Wrapped(spec, Counts())


# refused before the first epoch for what they return or hold


@network("returns a tuple in training mode")
def two_outputs_in_training(spec: ImageSpec) -> nn.Module:
    """Returns an auxiliary output while it trains."""

    class Auxiliary(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return (y, y) if self.training else y  # type: ignore[return-value]

    return Auxiliary(spec, nn.Identity())


@network("has the lazy parameter head.weight")
def lazy_head(spec: ImageSpec) -> nn.Module:
    """Has a head that learns its size at the first call."""
    wrapped = Wrapped(spec, nn.Identity())
    wrapped.head = nn.LazyLinear(spec.num_classes)
    return wrapped


@network("is not an image classifier: for one image it returns (1, 10, 1, 1)")
def unflattened(spec: ImageSpec) -> nn.Module:
    """Returns its logits as a map of one place."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(spec.channels, spec.num_classes, 1))


@network("returns logits that are not finite in training mode")
def divides_by_zero(spec: ImageSpec) -> nn.Module:
    """Divides by the deviation of a constant."""
    return Wrapped(spec, Call(lambda x: x / (0 * x).std()))


@network("returns float64 in training mode")
def double_logits(spec: ImageSpec) -> nn.Module:
    """Returns its logits in float64."""
    return nn.Sequential(Wrapped(spec, nn.Identity()), Call(lambda x: x.double()))


@network("fails in the backward pass")
def writes_over(spec: ImageSpec) -> nn.Module:
    """Writes over what its backward pass needs."""
    return Wrapped(spec, Call(lambda x: x.exp().mul_(2)))


@network("cannot be restored from a checkpoint")
def hidden_tensor(spec: ImageSpec) -> nn.Module:
    """Draws a tensor that is neither a parameter nor a buffer."""
    scale = torch.rand(8, 1, 1)
    return Wrapped(spec, Call(lambda x: x * scale.to(x.device)))


# taken, with all that they have


@network()
def layernorm_chw(spec: ImageSpec) -> nn.Module:
    """Layer norm over channels and positions."""
    return Wrapped(spec, nn.LayerNorm([8, spec.height, spec.width]))


class Tokens(nn.Module):
    """The rows of the map as tokens through a layer of sequences."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        rows = x.mean(3).transpose(1, 2)  # N, H, C
        out = self.mixer(rows)
        return (out[0] if isinstance(out, tuple) else out).mean(1)  # N, C


class SelfAttention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@network()
def attention(spec: ImageSpec) -> nn.Module:
    """Rows attend to rows."""
    return Wrapped(spec, Tokens(SelfAttention(8)))


@network()
def encoder_layer(spec: ImageSpec) -> nn.Module:
    """Rows through torch's encoder layer."""
    return Wrapped(spec, Tokens(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)))


@network()
def gru_rows(spec: ImageSpec) -> nn.Module:
    """Rows through a GRU."""
    return Wrapped(spec, Tokens(nn.GRU(8, 8, batch_first=True)))


@network()
def conv3d_op(spec: ImageSpec) -> nn.Module:
    """A convolution over channels and positions."""
    layers = [Call(lambda x: x.unsqueeze(1)), nn.Conv3d(1, 2, 3, padding=1), Call(lambda x: x.mean(1))]
    return Wrapped(spec, nn.Sequential(*layers))


@network()
def weight_norm_old(spec: ImageSpec) -> nn.Module:
    """The old weight norm, which leaves a computed tensor on its module."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and used
        return Wrapped(spec, nn.utils.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))


@network()
def dpr_item(spec: ImageSpec) -> nn.Module:
    """Reads values of tensors while it is built."""
    rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
    return Wrapped(spec, nn.Sequential(*[nn.Dropout(rate) for rate in rates]))


@network()
def adaptive_max(spec: ImageSpec) -> nn.Module:
    """The maximum over regions that overlap."""
    return Wrapped(spec, nn.AdaptiveMaxPool2d(5))


@network()
def upsample_conv(spec: ImageSpec) -> nn.Module:
    """Down and up again."""
    down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
    return Wrapped(spec, nn.Sequential(down, nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1)))


@network()
def roll_shift(spec: ImageSpec) -> nn.Module:
    """Adds the map, rolled."""
    layers = [Call(lambda x: x + torch.roll(x, 3, 2)), nn.Conv2d(8, 8, 3, padding=1)]
    return Wrapped(spec, nn.Sequential(*layers))


@network()
def softmax_out(spec: ImageSpec) -> nn.Module:
    """Returns probabilities: a warning, no refusal."""
    return nn.Sequential(Wrapped(spec, nn.Identity()), nn.Softmax(dim=1))


@network()
def grid_sample(spec: ImageSpec) -> nn.Module:
    """Samples its map on a grid."""

    class Warp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            theta = torch.eye(2, 3, dtype=x.dtype, device=x.device).expand(x.shape[0], 2, 3)
            return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    return Wrapped(spec, Warp())


@network()
def tied(spec: ImageSpec) -> nn.Module:
    """Two convolutions with one weight."""
    first, second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    second.weight = first.weight
    return Wrapped(spec, nn.Sequential(first, nn.ReLU(), second))


@network()
def random_buffer(spec: ImageSpec) -> nn.Module:
    """Draws a buffer that its state_dict leaves out."""

    class Scaled(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.rand(8, 1, 1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    return Wrapped(spec, Scaled())


@network()
def complex_parameter(spec: ImageSpec) -> nn.Module:
    """Filters in the frequency domain: a parameter of four dimensions, read as complex numbers."""

    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(0.02 * torch.randn(8, spec.height, spec.width // 2 + 1, 2))

        def forward(self, x: Tensor) -> Tensor:
            spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.weight)
            return x + torch.fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")

    return Wrapped(spec, Filter())


@network()
def einsum_mixer(spec: ImageSpec) -> nn.Module:
    """Mixes columns by an einsum."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(spec.width))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nchw,wv->nchv", x, self.weight)

    return Wrapped(spec, Mixer())


@network()
def unusual_activations(spec: ImageSpec) -> nn.Module:
    """PReLU, Mish, ELU and GroupNorm."""
    return Wrapped(spec, nn.Sequential(nn.PReLU(8), nn.Conv2d(8, 8, 1), nn.Mish(), nn.GroupNorm(2, 8), nn.ELU()))


@network()
def routed(spec: ImageSpec) -> nn.Module:
    """A convolution whose weights are a mixture, chosen by the image (Yang et al. 2019, arXiv:1904.04971)."""

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.Parameter(0.1 * torch.randn(3, 8, 8, 3, 3))
            self.route = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            shares = self.route(x.mean((2, 3))).sigmoid()
            maps = torch.stack([F.conv2d(x, weight, padding=1) for weight in self.experts], dim=1)
            return (shares[:, :, None, None, None] * maps).sum(1)

    return Wrapped(spec, Routed())


@network()
def frozen_stem(spec: ImageSpec) -> nn.Module:
    """Does not train its first layer."""
    wrapped = Wrapped(spec, nn.Identity())
    wrapped.stem.requires_grad_(requires_grad=False)
    return wrapped


@dataclass(frozen=True)
class Journey:
    """How far a network came."""

    name: str
    steps: tuple[str, ...]
    """A mark per verb: ok, or the exit code."""
    message: str
    """Message of the first verb that refused, or the warnings of `fit`."""

    @property
    def as_expected(self) -> bool:
        """Whether `fit` took or refused it as EXPECTED says; all that is taken must be tested, and nothing crash."""
        wanted = EXPECTED[self.name]
        fitted = self.steps[2:4] == ("ok", "ok")
        if "exit 1" in self.steps:
            return False
        return fitted if wanted == TAKEN else not fitted and wanted in self.message


VERBS = ("list", "explain", "fit", "test", "export", "verify")


def travel(name: str, images: int) -> Journey:
    """Take a network through every verb, in the current folder."""
    run = ["--model.arch", name, "--data.train_images", str(images), "--trainer.max_epochs", "1", "--model.lr", "0.01"]
    commands = {
        "list": ["list", "--format", "json"],
        "explain": ["explain", name, "--size", "28x28x1", "--format", "json"],
        "fit": ["fit", *run],
        "test": ["test", *run],
        "export": ["export", f"runs/mnist5k_{name}/seed1", "--provider", "cpu"],
        "verify": ["verify", f"exports/mnist5k_{name}"],
    }
    steps: list[str] = []
    message = ""
    for verb, words in commands.items():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command(words)
        if verb == "list" and name not in {row["arch"] for row in json.loads(out.getvalue())}:
            code = 1
        steps.append("ok" if code == 0 else f"exit {code}")
        said = [
            line.removeprefix("cnnbench: ") for line in err.getvalue().splitlines() if line.startswith("cnnbench: ")
        ]
        message = message or "; ".join(said)
        if code and verb not in ("list", "explain"):
            break
    return Journey(name, tuple([*steps, *["-"] * (len(VERBS) - len(steps))]), message)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(EXPECTED), help="these networks")
    parser.add_argument("--images", type=int, default=256, help="training images")
    chosen = parser.parse_args()
    register()
    print(f"| network | {' | '.join(VERBS)} | what was said |\n| --- |{' --- |' * (len(VERBS) + 1)}")
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in chosen.only:
            journey = travel(name, chosen.images)
            print(f"| {name} | {' | '.join(journey.steps)} | {journey.message} |", flush=True)
            wrong += [] if journey.as_expected else [name]
    if wrong:
        print(f"not as expected: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
