"""Exports of networks of other libraries and of all registered ones: which rule holds which constant, and what is off.

    python benchmarks/libraries.py [--only NAME ...] [--registered]

Each is built with random weights and random batch-norm statistics, at 32 pixels or the smallest size that it takes,
exported, proven, and run by ONNX Runtime at batches 1, 2 and 7. Rows are in Markdown, as docs/proof.md has them. Exits
1 where one is refused that EXPECTED does not name.
"""

import argparse
import sys
import time
from collections import Counter

import numpy as np
from proof import randomised

from cnnbench.architectures import architecture
from cnnbench.bundles import contract, graph
from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.bundles.parity.proof import prove
from cnnbench.bundles.parity.reference import torch_logits
from cnnbench.runtime.providers import open_session
from cnnbench.types import CnnbenchError, ImageSpec

NETWORKS: dict[str, int] = {
    "timm/test_mambaout": 32,
    "timm/test_byobnet": 32,
    "timm/test_convnext": 32,
    "timm/lcnet_035": 32,
    "timm/starnet_s050": 32,
    "timm/dla46x_c": 32,
    "timm/mobilevit_xxs": 32,
    "timm/repghostnet_050": 32,
    "timm/edgenext_xx_small": 32,
    "timm/ghostnet_050": 32,
    "timm/efficientvit_b0": 32,
    "timm/efficientvit_m0": 32,
    "timm/regnetx_002": 32,
    "timm/cspnext_tiny": 32,
    "timm/iformer_t": 32,
    "timm/fasternet_t0": 32,
    "timm/cs3darknet_focus_s": 32,
    "timm/lcnetv2_small": 32,
    "timm/swiftformer_xs": 32,
    "timm/inception_next_atto": 32,
    "timm/efficientformerv2_s0": 224,
    "timm/fastvit_t8": 32,
    "timm/pvt_v2_b0": 32,
    "timm/rexnet_100": 32,
    "timm/hardcorenas_b": 32,
    "timm/hgnetv2_b0": 32,
    "timm/efficientnet_b0": 32,
    "timm/pit_ti_224": 224,
    "timm/repvit_m1": 32,
    "timm/resnet10t": 32,
    "timm/cpubone_nano": 32,
    "timm/coat_tiny": 224,
    "timm/convit_tiny": 224,
    "timm/efficientvim_m1": 32,
    "timm/gmlp_ti16_224": 224,
    "timm/shvit_s1": 32,
    "timm/crossvit_tiny_240": 32,
    "timm/densenet121": 32,
    "timm/levit_128s": 224,
    "timm/nf_regnet_b0": 32,
    "timm/dpn48b": 32,
    "timm/resnest14d": 32,
    "timm/lambda_resnet26t": 32,
    "timm/csatv2": 64,
    "timm/hrnet_w18_small": 32,
    "timm/resnetv2_18": 32,
    "timm/legacy_seresnet18": 32,
    "timm/poolformerv2_s12": 32,
    "timm/skresnet18": 32,
    "timm/lowformer_b0": 32,
    "timm/convmixer_768_32": 32,
    "timm/inception_v3": 96,
    "timm/res2next50": 32,
    "timm/rdnet_tiny": 32,
    "timm/mvitv2_tiny": 32,
    "timm/sam2_hiera_tiny": 32,
    "torchvision/squeezenet1_1": 32,
    "torchvision/shufflenet_v2_x0_5": 32,
    "torchvision/mnasnet0_5": 32,
    "torchvision/mobilenet_v3_small": 32,
    "torchvision/mobilenet_v2": 32,
    "torchvision/regnet_y_400mf": 32,
    "torchvision/efficientnet_b0": 32,
    "torchvision/densenet121": 32,
    "torchvision/googlenet": 32,
    "torchvision/resnet18": 32,
    "torchvision/inception_v3": 96,
    "torchvision/convnext_tiny": 32,
    "torchvision/swin_t": 32,
    "torchvision/alexnet": 64,
    "torchvision/vit_b_32": 32,
}
"""The smallest network of 56 of timm's model files and of torchvision's, and the smallest side that it takes."""
EXPECTED: dict[str, str] = {}
"""What is refused, and why."""
IMAGES = 8


def row(name: str, side: int) -> str:
    """Export, prove and run one network: its row."""
    spec = ImageSpec(side, side, 3, 10, (0.5,) * 3, (0.25,) * 3)
    began = time.perf_counter()
    network = randomised(name, spec)
    params = sum(parameter.numel() for parameter in network.parameters())
    head = f"| {name} | {side} | {params:,} |"
    try:
        exported = graph.to_onnx(network, spec, metadata={})
        random = np.random.RandomState(0)
        pixels = golden_images(random.randint(0, 256, (50, side, side, 3)).astype(np.uint8)).pixels[:IMAGES]
        proven = prove(exported, images=pixels, dtype="uint8")
    except CnnbenchError as error:
        return f"{head} refused: {error} |"
    rules = Counter(entry.rule for entry in proven.proof.constants)
    largest = float(np.abs(proven.logits).max())
    expected = torch_logits(network, pixels)
    session = open_session(exported.model.SerializeToString())
    off = 0.0
    for size in (1, 2, 7):
        (logits,) = session.run([contract.LOGITS], {contract.INPUT: pixels[:size]})
        off = max(off, float(np.abs(logits - expected[:size]).max()) / largest)
    bound = comparison.error_bound(float(np.abs(expected - proven.logits).max()), largest) / largest
    verdict = "" if off <= bound else "refused: ONNX Runtime is off"
    held = " | ".join(str(rules[rule]) for rule in ("tensor", "transpose", "pieces", "literal"))
    errors = f"{proven.proof.fold_error:.0e} | {proven.proof.graph_error:.0e} | {off:.0e} | {bound:.0e}"
    return f"{head} {proven.proof.folded} | {held} | {errors} | {time.perf_counter() - began:.0f} | {verdict} |"


def main() -> int:
    """Print the rows; 1 where a network is refused that should not be, or the other way round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--registered", action="store_true", help="cnnbench's own architectures at 32 pixels instead")
    chosen = parser.parse_args()
    networks = dict.fromkeys(architecture, 32) if chosen.registered else NETWORKS
    if chosen.only:
        networks = {name.partition("@")[0]: int(name.partition("@")[2] or 32) for name in chosen.only}
    print(
        "| network | side | parameters | folded | tensors | transposed | pieces | literals | fold | file | float32 | "
        "bound | seconds | refused |\n|" + " --- |" * 14
    )
    wrong = 0
    for name, side in networks.items():
        line = row(name, side)
        wrong += ("refused" in line) != (name in EXPECTED)
        print(line, flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
