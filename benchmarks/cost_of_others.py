"""What `cost` and `explain` say of timm's networks, against torch's counter, fvcore and the networks' own parameters.

    python benchmarks/cost_of_others.py [--drawn 200] [--fvcore 2e9] [--skip 0] [--limit 1000]

One network of each of timm's model files (the smallest of those whose names speak of small sizes), and as many others
as asked for, drawn by a fixed seed; each for the images that it was made for and 1000 classes. A row per network as it
is done, then how many agree, differ with a reason, differ without, and are refused; any exception is a fault. fvcore
runs a network once and so only those below a number of multiply-adds. Nothing is downloaded.
"""

import argparse
import logging
import random
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import timm
import torch
from timm.models._registry import _module_to_models
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.analysis import receptive_field
from cnnbench.analysis.description import NetworkDescription, describe_traced
from cnnbench.analysis.tracer import trace_architecture
from cnnbench.types import SEED, CnnbenchError, ImageSpec, first_line

SMALL = (
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xx_small",
    "xs",
    "x_small",
    "tiny",
    "small",
    "mini",
    "lite",
    "_t",
    "_s",
)
PRODUCTS = ("conv", "linear", "matmul", "addmm", "bmm", "einsum")
"""Products of fvcore's operators."""
HEADING = ("network", "images", "parameters", "MACs", "torch", "fvcore", "fields by formula", "measured", "s")


@dataclass(frozen=True)
class Row:
    """A network and what differs, if anything."""

    cells: tuple[str, ...]
    verdict: str


ON_PARAMETERS = "MACs on parameters alone, not counted"


def chosen(drawn: int) -> list[str]:
    """One small network of each file, and `drawn` of all others by a fixed seed."""
    smallest = [min(sorted(names), key=_rank) for _, names in sorted(_module_to_models.items())]
    others = sorted(set(timm.list_models()) - set(smallest))
    return [*smallest, *random.Random(SEED).sample(others, min(drawn, len(others)))]


def _rank(name: str) -> tuple[int, int, int]:
    """The smaller, the smaller a network of this name is likely to be."""
    word = next((place for place, word in enumerate(SMALL) if word in name), len(SMALL))
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return (word, sum(number for number in numbers if number < 200), len(name))


def spec_of(name: str) -> ImageSpec:
    """The images that a network was made for."""
    configuration = timm.get_pretrained_cfg(name)
    channels, height, width = configuration.input_size if configuration else (3, 224, 224)
    return ImageSpec(height, width, channels, 1000)


def torch_macs(network: nn.Module, spec: ImageSpec, images: int) -> int:
    """By torch's counter alone."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(images, spec.channels, spec.height, spec.width, device="meta"))
    return int(counter.get_total_flops()) // 2


def against_torch(name: str, spec: ImageSpec, description: NetworkDescription) -> str:
    """`=`, or why the multiply-adds or parameters differ; begins with `?` where no reason is known."""
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=spec.num_classes, in_chans=spec.channels).eval()
    network.requires_grad_(False)
    params, cost = sum(p.numel() for p in network.parameters()), description.cost
    if cost.form:
        return f"{cost.form} ({params:,} parameters before)"
    if params != cost.params:
        return f"? {params:,} parameters"
    try:
        one = torch_macs(network, spec, 1)
        if one == cost.macs:
            return "="
        per_image = torch_macs(network, spec, 2) - one
    except (RuntimeError, NotImplementedError) as error:
        return f"not counted on the meta device: {type(error).__name__}"
    if per_image == cost.macs:
        return f"{one - per_image:,} {ON_PARAMETERS}"
    return f"? {one:,} MACs"


def against_fvcore(name: str, spec: ImageSpec, description: NetworkDescription, *, torch_says: str) -> str:
    """`=`, or the ratio of fvcore's count to ours with the reason, such as products that it has no count for."""
    from fvcore.nn import FlopCountAnalysis

    timm.layers.set_fused_attn(False)  # fvcore has no count for the fused operator
    network = timm.create_model(name, num_classes=spec.num_classes, in_chans=spec.channels).eval()
    pixels = torch.zeros(1, spec.channels, spec.height, spec.width)
    analysis = FlopCountAnalysis(network, pixels).unsupported_ops_warnings(False).tracer_warnings("none")
    counts = analysis.by_operator()
    found = int(sum(counts[operator] for operator in PRODUCTS))
    if found == description.cost.macs:
        return "="
    missing = [op.removeprefix("aten::") for op in analysis.unsupported_ops() if "mm" in op or "attention" in op]
    reason = description.cost.form or (f"no count for {', '.join(missing)}" if missing else "")
    alone, found_alone, _ = torch_says.partition(f" {ON_PARAMETERS}")
    if found_alone and found == description.cost.macs + int(alone.replace(",", "")):
        reason = "with those on parameters alone"
    return f"{'' if reason else '? '}{found / max(1, description.cost.macs):.4f} x {reason}".strip()


def examined(name: str, fvcore_below: float) -> Row:
    """Count and explain one network."""
    start, spec = time.perf_counter(), spec_of(name)
    try:
        description = describe_traced(f"timm/{name}", spec, traced=trace_architecture(f"timm/{name}", spec))
    except CnnbenchError as refusal:
        return Row((name, spec.size, *["-"] * 6, f"{time.perf_counter() - start:.0f}"), f"refused: {refusal}")
    cost, layers = description.cost, description.layers
    torch_says = against_torch(name, spec, description)
    fvcore_says = "not run"
    if cost.macs < fvcore_below:
        try:
            fvcore_says = against_fvcore(name, spec, description, torch_says=torch_says)
        except Exception as error:  # fvcore traces with torch.jit, which many networks refuse
            fvcore_says = f"fails: {first_line(error)[:60]}"
    contradicted = [d for d in layers if d.layer.field and d.measured_field and d.layer.field != d.measured_field]
    cells = (
        f"{sum(1 for d in layers if d.layer.field)} of {len(layers)}",
        f"{sum(1 for d in layers if d.measured_field)}" + (f", {len(contradicted)} differ" if contradicted else ""),
        f"{time.perf_counter() - start:.0f}",
    )
    says = [word for word in (torch_says, fvcore_says) if word.startswith("?")]
    verdict = "differs without a reason" if says else "field differs" if contradicted else "agrees"
    if verdict == "agrees" and torch_says != "=":
        verdict = "differs with a reason"
    return Row((name, spec.size, f"{cost.params:,}", f"{cost.macs:,}", torch_says, fvcore_says, *cells), verdict)


def rows(names: list[str], fvcore_below: float) -> Iterator[Row]:
    """A row per network; an exception is a row too."""
    for name in names:
        try:
            yield examined(name, fvcore_below)
        except Exception as error:
            yield Row((name, *["-"] * 8), f"fault: {type(error).__name__}: {first_line(error)}")


def main() -> None:
    """Print a row per network, and what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", type=int, default=200, help="networks beside one of each file (default 200)")
    parser.add_argument("--fvcore", type=float, default=2e9, help="run fvcore below so many MACs (default 2e9)")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many networks at the start")
    parser.add_argument("--limit", type=int, default=10**6, help="stop after so many networks")
    parser.add_argument("--seconds", type=float, default=2, help="seconds to measure fields along an axis (default 2)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    receptive_field.BUDGET_S = options.seconds  # type: ignore[assignment]
    print("| " + " | ".join(HEADING) + " |", "|" + " --- |" * len(HEADING), sep="\n", flush=True)
    verdicts: Counter[str] = Counter()
    for row in rows(chosen(options.drawn)[options.skip :][: options.limit], options.fvcore):
        verdicts[row.verdict.partition(":")[0]] += 1
        print("| " + " | ".join(row.cells) + " |", flush=True)
        if row.verdict not in ("agrees", "differs with a reason"):
            print(f"{row.cells[0]}: {row.verdict}", file=sys.stderr, flush=True)
    print(
        "", f"{verdicts.total()} networks: " + ", ".join(f"{n} {word}" for word, n in verdicts.most_common()), sep="\n"
    )
    sys.exit(int(verdicts["fault"] > 0))


if __name__ == "__main__":
    main()
