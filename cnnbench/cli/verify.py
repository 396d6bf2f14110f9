"""`verify`: verify a bundle from disk, without torch."""

from __future__ import annotations

import json
from typing import Literal

from cnnbench.cli.hints import say_next
from cnnbench.types import Exit, one_line


def verify(
    bundle: str,
    *,
    provider: str = "cpu",
    backend: Literal["onnxruntime", "openvino"] = "onnxruntime",
    quick: bool = False,
    rescore: bool = False,
    allow_predict: bool = False,
    root: str | None = None,
    folder: str | None = None,
    timeout: float | None = None,
    format: Literal["text", "json"] = "text",
) -> int:
    """Verify a bundle from disk: hashes, ONNX checker, contract, proof, golden outputs, reference predictions.

    The proof is repeated in float64, for up to 20 seconds. It cannot detect a forgery that changes weights, logits and
    hashes together, nor a difference that only other images or batch sizes show.

    Args:
        bundle: A folder that `export` wrote.
        provider: Where to run it: cpu or cuda; it runs there or fails.
        backend: Runtime: onnxruntime, or openvino, set to float32, within the same bounds.
        quick: Leave out the evaluation in float64; every constant is still compared with its hash.
        rescore: Also score the whole test split again and compare every prediction.
        allow_predict: Accept a predict.py that cnnbench did not write; read it first.
        root: Folder of the downloaded datasets, for --rescore.
        folder: Folder of your own images, for --rescore.
        timeout: Time limit in seconds: 900 by default, 4 hours with --rescore.
        format: text for people, json for one JSON document.

    Examples:
        cnnbench verify exports/mnist5k_lenet5
        cnnbench verify exports/mnist5k_lenet5 --rescore
    """
    from cnnbench.bundles.verify import verify_bundle
    from cnnbench.runtime import openvino_session

    checks = verify_bundle(
        bundle,
        provider=provider,
        backend=backend,
        quick=quick,
        rescore=rescore,
        allow_predict=allow_predict,
        root=root,
        folder=folder,
        timeout=timeout,
    )
    where = openvino_session.described() if backend == "openvino" else provider
    warnings = [warning for check in checks for warning in check.warnings]
    if format == "json":
        details: dict[str, list[str]] = {}
        for check in checks:
            details.setdefault(check.name, []).append(check.detail)
        ran = {"provider": provider, "backend": backend, "where": where}
        document = {"bundle": bundle, **ran, "verdict": "verified", "checks": details, "warnings": warnings}
        print(json.dumps(document, indent=2))
        return Exit.OK
    for check in checks:
        print(one_line(f"{check.name:10} {check.detail}"))
    print(one_line(f"{bundle} is verified on {where}"))
    for warning in warnings:
        print(one_line(f"WARNING: {warning}"))
    say_next("classify", bundle, "FOLDER")
    return Exit.OK
