"""What the process that reads a bundle cannot do on this kernel, each thing tried, and what confining it costs.

    python benchmarks/confinement.py [--rounds 9]

The probes are those of tests/forbidden.py. As root it also tries them as an ordinary user, who is then uid 65534. The
cost is the time of a call with every layer against the same call with none, in turns: one that does nothing, and one
that evaluates the float32 file of exports/mnist_lenet5 in float64.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import forbidden
import numpy as np
from rounds import interleaved, options, table

from cnnbench.bundles.manifest import open_manifest
from cnnbench.bundles.parity import child
from cnnbench.runtime import sandbox
from cnnbench.types import CnnbenchError

LAYERS = {"limits": "limits", "namespaces": "namespaces", "landlock": "Landlock"}
LAYERS |= {"capabilities": "no capabilities", "system_calls": "seccomp"}
"""Functions of `confine`, and their names in the table."""
BUNDLE = Path(__file__).resolve().parents[1] / "exports" / "mnist_lenet5"


def outcomes(uid: int, layers: tuple[str, ...]) -> dict[str, str]:
    """What comes of each probe in the child of a user, with some layers alone."""
    sandbox._spawn = forbidden.spawner(uid, layers)
    with forbidden.targets(uid) as to:
        found = sandbox.call(forbidden.try_all, to, about="the probes")
    if layers in ((), ("limits",), tuple(LAYERS)):  # elsewhere it would go on
        found["compute longer than the limit"] = burn() if layers else "done"
    return found


def burn() -> str:
    """What comes of a process that computes without end under a limit of one second."""
    sandbox.CPU_SECONDS = 1
    try:
        sandbox.call(forbidden.burn, None, about="the probe")
    except CnnbenchError as error:
        return "SIGXCPU" if "s of CPU" in str(error) else str(error)
    return "done"


def probes(users: dict[str, int]) -> None:
    """Print a row for each probe: what came of it for each user, and which layers refuse it when they are alone."""
    whole = {user: outcomes(uid, tuple(LAYERS)) for user, uid in users.items()}
    bare = {user: outcomes(uid, ()) for user, uid in users.items()}
    alone = {(user, layer): outcomes(uid, (layer,)) for user, uid in users.items() for layer in LAYERS}
    rows = [["tried", *(f"as {user}" for user in users), "refused by, each alone"]]
    for probe in next(iter(whole.values())):
        possible = [user for user in users if bare[user][probe] == "done"]
        by = [] if possible else ["the environment that it is given"]
        for layer, name in LAYERS.items():
            refused = [user for user in possible if alone[user, layer].get(probe, "done") != "done"]
            by += [name if refused == possible else f"{name} (as {refused[0]})"] if refused else []
        rows.append([probe, *(whole[user][probe] for user in users), ", ".join(by)])
    table(rows)


def cost(rounds: int) -> None:
    """Print what confinement adds to a call that does nothing, and to one that evaluates a file."""
    manifest = open_manifest(BUNDLE)
    rows = [["call", "confined, ms", "not confined, ms", f"ratio, median of {rounds} rounds"]]
    with tempfile.TemporaryDirectory() as out:
        with np.load(BUNDLE / "golden.npz") as golden:
            np.save(f"{out}/images.npy", golden["pixels"])
        request = child.ExactRequest(
            model=str(BUNDLE / "model.onnx"),
            contract=manifest.contract,
            proof=manifest.proof,
            spec=manifest.spec,
            images=f"{out}/images.npy",
            seconds=60,
            least=1,
            out=f"{out}/logits.npy",
        )

        def evaluate() -> None:
            sandbox.call(child.evaluate, request, about="it", reads=[request.model], writes=[out])

        for what, act in {"a call that does nothing": sandbox.lacking, "a file evaluated in float64": evaluate}.items():
            sides = {"confined": timed(act, tuple(LAYERS)), "not confined": timed(act, ())}
            found = interleaved(sides, rounds)
            pairs = zip(found["confined"], found["not confined"], strict=True)
            ratio = median(ours / other for ours, other in pairs)
            times = [f"{1e3 * median(found[side]):.0f}" for side in sides]
            rows.append([what, *times, f"{ratio:.2f}"])
    table(rows)


def timed(act: Callable[[], object], layers: tuple[str, ...]) -> Callable[[], float]:
    """Seconds of a call with these layers."""

    def seconds() -> float:
        sandbox._spawn = forbidden.spawner(os.geteuid(), layers)
        start = time.perf_counter()
        act()
        return time.perf_counter() - start

    return seconds


def main() -> None:
    """Print the kernel, the table of probes, and the cost."""
    chosen = options(__doc__, rounds=9).parse_args()
    os.environ[forbidden.VARIABLE] = "secret"
    os.environ["PYTHONPATH"] = str(Path(forbidden.__file__).parent)
    me = os.geteuid()
    users = {"root": 0, "an ordinary user": forbidden.NOBODY} if me == 0 else {"an ordinary user": me}
    lacks = sandbox.lacking()
    print(
        f"{os.uname().sysname} {os.uname().release}, which lacks {', '.join(lacks) or 'nothing that is asked of it'}\n"
    )
    probes(users)
    print()
    cost(chosen.rounds)


if __name__ == "__main__":
    main()
