"""Translation: networks trained on objects on the left, tested on objects on the right."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cnnbench import pictures
from cnnbench.analysis.cost import cost
from cnnbench.lab import Claim, Lesson, Numbers, Row, lesson
from cnnbench.records.schema import DataConfig
from cnnbench.training.classifier import Classifier
from cnnbench.training.data import ImageData
from cnnbench.types import COST_SPEC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT = "left-right"
CHANCE = 1 / COST_SPEC.num_classes


@dataclass(frozen=True)
class Plan:
    """How long a network trains, under the common recipe: epochs of `steps` batches of 64."""

    description: str
    epochs: int
    steps: int
    lr: float


NETWORKS = {
    "mlp": Plan("fully connected", epochs=12, steps=140, lr=0.1),
    "lenet5_relu": Plan("convolutions, then fully connected", epochs=12, steps=140, lr=0.1),
    "inception_small": Plan("convolutions, then the mean over all positions", epochs=5, steps=40, lr=0.2),
}


@dataclass(frozen=True)
class Scores:
    """Accuracies, as fractions."""

    left: float
    """On validation images: objects on the left, as in training."""
    right: float
    """On test images: objects on the right."""


@lesson(name="translation", order=11, trains=True)
def translation() -> Lesson:
    """Trained on objects on the left, tested on the right: fully connected fails, global pooling does not."""
    scores = {name: _train(name, plan) for name, plan in NETWORKS.items()}
    return Lesson(
        "Translation",
        "The dataset 'shapes' with the split left-right: ten shapes of random size, place and colours, wholly in the "
        "left half of the training and validation images, wholly in the right half of the test images. No crops or "
        "flips; the common recipe, with the rates and lengths of the table, which differ. For any network: cnnbench "
        "fit --model.arch NAME --data.dataset shapes --data.split left-right, then test.",
        _claims(*scores.values()),
        [Numbers(f"Accuracy where shapes were seen, and where not; chance is {CHANCE:.0%}", _rows(scores))],
        _draw(scores),
        "Training and test images, and bars: accuracy on the left and on the right",
    )


def _claims(mlp: Scores, lenet: Scores, conv: Scores) -> list[Claim]:
    return [
        Claim(
            f"The fully connected network has learnt shapes on the left ({mlp.left:.1%} of unseen images right, chance "
            f"is {CHANCE:.0%}) and fails on the right ({mlp.right:.1%})",
            mlp.left > 0.4 and mlp.right < 0.25,
        ),
        Claim(
            f"Convolution alone is not enough: LeNet-5 ends fully connected, and has {lenet.left:.1%} on the left, "
            f"{lenet.right:.1%} on the right",
            lenet.left > 0.9 and lenet.right < 0.25,
        ),
        Claim(
            "The convolutional network with global pooling recognises them on the right as on the left "
            f"({conv.left:.1%} and {conv.right:.1%}), though it never saw one there",
            conv.left > 0.9 and conv.left - conv.right < 0.05,
        ),
    ]


def _rows(scores: dict[str, Scores]) -> list[Row]:
    return [
        {
            "network": name,
            "what it is": plan.description,
            "parameters": cost(name).params,
            "batches of 64": plan.epochs * plan.steps,
            "learning rate": plan.lr,
            "accuracy on the left, validation": scores[name].left,
            "accuracy on the right, test": scores[name].right,
        }
        for name, plan in NETWORKS.items()
    ]


def _train(name: str, plan: Plan) -> Scores:
    from lightning.pytorch import Trainer

    torch.manual_seed(1)
    data, classifier = ImageData(DataConfig(dataset="shapes", split=SPLIT, batch_size=64)), Classifier(name, lr=plan.lr)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers that are as they are on purpose
        trainer = Trainer(
            max_epochs=plan.epochs,
            limit_train_batches=plan.steps,
            check_val_every_n_epoch=plan.epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(classifier, datamodule=data)
        left = float(trainer.callback_metrics["val/accuracy"])
        trainer.test(classifier, datamodule=data, verbose=False)
    return Scores(left, float(trainer.callback_metrics["test/accuracy"]))


def _draw(scores: dict[str, Scores]) -> Figure:
    data = ImageData(DataConfig(dataset="shapes", split=SPLIT)).loaded
    figure, (train, test, bars) = pictures.new(11.5, 4.4, panels=3)
    figure.suptitle("Seen on the left in training, on the right in the test")
    for axes, split, title in ((train, data.train, "trained on"), (test, data.test, "tested on")):
        axes.set_axis_off()
        tiles = split.images[:9].reshape(3, 3, 32, 32, 3)
        axes.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in tiles], axis=0))
        axes.set_title(title, fontsize=11)
    places = np.arange(len(scores))
    sides = {
        "left: seen": [score.left for score in scores.values()],
        "right: never seen": [score.right for score in scores.values()],
    }
    for index, (label, accuracies) in enumerate(sides.items()):
        heights = [100 * accuracy for accuracy in accuracies]
        rectangles = bars.bar(places + 0.4 * (index - 0.5), heights, 0.38, color=pictures.COLOURS[index], label=label)
        bars.bar_label(rectangles, fmt="%.0f", fontsize=9)
    bars.axhline(100 * CHANCE, color="#666666", linestyle="--", linewidth=1, label="chance")
    bars.set_xticks(places, list(scores), fontsize=9)
    bars.set_ylabel("accuracy, %")
    bars.set_ylim(0, 119)
    bars.legend(fontsize=8, loc="upper center", ncols=3)
    return figure
