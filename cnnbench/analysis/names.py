"""Names of layers as papers write them: those of the network's own paper, else kind and number, as `conv1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from cnnbench.analysis.layer import Layer
from cnnbench.architectures import architecture

SHORT = {
    "convolution": "conv",
    "transposed convolution": "deconv",
    "linear": "fc",
    "matrix product": "matmul",
    "concatenate": "concat",
    "zero padding": "pad",
    "global average pool": "avg_pool",
}
"""Kinds as papers write them; any other kind of pooling is `pool`."""
LENET = ("C1", "S2", "C3", "S4", "C5", "F6", "OUTPUT")
ALEXNET = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
GOOGLENET = ("conv2", "3a", "3b", "pool3", "4a", "4b", "4c", "4d", "4e", "pool4", "5a", "5b", "avg_pool")
INCEPTION_SMALL = ("conv1", "pool1", "2a", "2b", "pool2", "3a", "3b", "avg_pool")
"""Of both, by place; the last layer is `linear`."""


def layer_names(arch: str, layers: Sequence[Layer]) -> list[str]:
    """A name for each of `layers`, which a network of `arch` has in the order of execution; no name twice.

    Args:
        arch: A registered architecture, or any other text, whose layers are named by kind and number.
        layers: As `describe_network` lists them: their own names begin with the place in the network.
    """
    module = architecture[arch].module if arch in architecture or "/" in arch else ""
    name = FAMILIES.get(module, by_kind)
    names = name(layers)
    return names if len(names) == len({*names}) == len(layers) else by_kind(layers)


def by_kind(layers: Sequence[Layer]) -> list[str]:
    """`conv1`, `pool1`, `conv2`, ...: the kind, counted."""
    seen: Counter[str] = Counter()
    names = []
    for layer in layers:
        kind = _kind(layer)
        seen[kind] += 1
        names.append(kind if kind == "avg_pool" else f"{kind}{seen[kind]}")
    return names


def lenet(layers: Sequence[Layer]) -> list[str]:
    """C1 to OUTPUT: LeCun et al. 1998, figure 2. C convolution, S subsampling, F full connection, numbered together."""
    padding = ["pad" for layer in layers if layer.kind == "zero padding"]
    return [*padding, *LENET]


def alexnet(layers: Sequence[Layer]) -> list[str]:
    """conv1 to fc8: the paper numbers eight layers with weights; the names are those of Caffe's bvlc_alexnet."""
    return [*ALEXNET]


def vgg(layers: Sequence[Layer]) -> list[str]:
    """conv1_1 to fc8: the authors' released models (VGG_ILSVRC_16_layers); stage and place in it.

    For small images one linear layer, `fc`, takes the place of fc6 to fc8.
    """
    names = []
    stage, place = 1, 1
    linear = iter(["fc6", "fc7", "fc8"] if sum(layer.kind == "linear" for layer in layers) == 3 else ["fc"])
    for layer in layers:
        if layer.kind == "convolution":
            names.append(f"conv{stage}_{place}")
            place += 1
        elif "pool" in layer.kind:
            names.append(f"pool{stage}")
            stage, place = stage + 1, 1
        else:
            names.append(next(linear, layer.kind))
    return names


def resnet(layers: Sequence[Layer]) -> list[str]:
    """conv1, conv2_1 to fc: He et al. 2015, table 1, where conv3_1 is the first block of the stage conv3_x.

    Behind the block stands the layer in it: `conv3_1/2` is its second convolution, `/shortcut` and `/add` the way
    around it. Section 4.2 names no layers of the networks for small images: theirs go by the same rule.
    """
    names = []
    stage, blocks, block, place = 2, 0, "", 0
    for layer in layers:
        top, _, inside = layer.name.partition(".")
        inner = layer.kind == "add" or inside.startswith(("residual", "shortcut")) or inside.count(".") == 2
        if inner and top != block:
            blocks, block, place = blocks + 1, top, 0
            if blocks > 1 and any(each.stride == (2, 2) for each in layers if each.name.startswith(f"{top}.")):
                stage, blocks = stage + 1, 1
        if not inner:
            names.append({"convolution": "conv1", "linear": "fc", "max pool": "max_pool"}.get(layer.kind, _kind(layer)))
        elif layer.kind == "convolution" and "shortcut" not in inside:
            place += 1
            names.append(f"conv{stage}_{blocks}/{place}")
        else:
            last = {"add": "add", "zero padding": "shortcut_pad"}.get(layer.kind, "shortcut")
            names.append(f"conv{stage}_{blocks}/{last}")
    return names


def inception(layers: Sequence[Layer]) -> list[str]:
    """conv1, 3a/1x1 to linear: Szegedy et al. 2014, table 1, for the block and, by its columns, for the layer in it.

    GoogLeNet's stem for small images is the paper's second convolution alone, conv2. The small networks' blocks have
    the number of poolings before them, from 2, and a letter, as the paper's have.
    """
    pooled = any(layer.name == "1" and "pool" in layer.kind for layer in layers)
    places = INCEPTION_SMALL if pooled else GOOGLENET
    stem = iter(["conv1", "pool1", "conv2/3x3_reduce", "conv2", "pool2"])
    large = any(layer.name == "0.4" for layer in layers)
    return [
        _in_inception(layer, places, next(stem) if large and layer.name.startswith("0.") else "") for layer in layers
    ]


def _in_inception(layer: Layer, places: Sequence[str], stem: str) -> str:
    top, _, inside = layer.name.partition(".")
    block = places[int(top)] if int(top) < len(places) else "linear"
    if stem or (not inside.startswith("branches") and layer.kind != "concatenate"):
        return stem or block
    if layer.kind == "concatenate":
        return f"{block}/concat"
    branch = ("1x1", "3x3", "5x5", "pool")[int(inside.split(".")[1])]
    if branch == "pool":
        return f"{block}/{'pool_proj' if layer.kind == 'convolution' else 'pool'}"
    narrows = branch != "1x1" and layer.kernel == (1, 1)
    return f"{block}/{branch}{'_reduce' if narrows else ''}"


def _kind(layer: Layer) -> str:
    return SHORT.get(layer.kind, "pool" if "pool" in layer.kind else layer.kind.replace(" ", "_"))


FAMILIES: dict[str, Callable[[Sequence[Layer]], list[str]]] = {
    "cnnbench.architectures.lenet": lenet,
    "cnnbench.architectures.alexnet": alexnet,
    "cnnbench.architectures.vgg": vgg,
    "cnnbench.architectures.resnet": resnet,
    "cnnbench.architectures.inception": inception,
}
"""By the module of the architecture; others have no paper's names."""
