import numpy as np
import pytest

import cnnbench


def test_the_public_face_is_what_it_says() -> None:
    assert sorted(cnnbench.__all__) == cnnbench.__all__
    assert all(hasattr(cnnbench, name) for name in cnnbench.__all__)


def test_architectures_can_be_asked_again_after_the_folder_of_that_name_was_imported() -> None:
    from cnnbench.architectures.lenet import lenet5  # noqa: F401

    assert cnnbench.architectures() == cnnbench.architectures()
    assert "lenet5" in cnnbench.architectures()


def test_cost_takes_a_size() -> None:
    assert cnnbench.cost("lenet5", height=28, width=28, channels=1).params == 61_706
    with pytest.raises(cnnbench.CnnbenchError, match="did you mean lenet5"):
        cnnbench.cost("lenet6")


def test_a_bundle_predicts(bundle: object) -> None:
    images = np.zeros((2, 28, 28, 1), np.uint8)
    assert set(cnnbench.load(bundle).predict(images)) <= set("0123456789")  # type: ignore[arg-type]
