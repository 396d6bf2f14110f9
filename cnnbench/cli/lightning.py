"""fit, validate, test and predict: LightningCLI over the one classifier and the one data module."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import msgspec
import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from cnnbench import datasets
from cnnbench.architectures import architecture
from cnnbench.records.schema import RunConfig
from cnnbench.registry import explained
from cnnbench.training.checkpoints import BestAndLast, open_checkpoint
from cnnbench.training.classifier import Classifier
from cnnbench.training.data import ImageData
from cnnbench.training.folder import RunFolder, find
from cnnbench.training.precision import Precision, choose
from cnnbench.training.predictions import write_predictions
from cnnbench.training.recorder import Recorder
from cnnbench.types import CnnbenchError, Exit


class TrainerFlags(Trainer):
    """Lightning's Trainer, less the arguments that could name code: a shared config is data.

    Args:
        accelerator: cpu, gpu, or auto.
        strategy: ddp and the like, or auto.
        max_epochs: Passes over the training images.
        profiler: simple, advanced or pytorch.
        enable_model_summary: Print Lightning's table of layers before training.
        num_sanity_val_steps: Validation batches run before training.
        precision: Lightning's names, or auto: bf16-mixed where the hardware computes bfloat16, else 32-true.
    """

    def __init__(
        self,
        accelerator: str = "auto",
        strategy: str = "auto",
        max_epochs: int = 10,
        profiler: str | None = None,
        enable_model_summary: bool = False,
        num_sanity_val_steps: int = 0,
        precision: Precision = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator=accelerator,
            strategy=strategy,
            max_epochs=max_epochs,
            profiler=profiler,
            enable_model_summary=enable_model_summary,
            num_sanity_val_steps=num_sanity_val_steps,
            precision=choose(precision, accelerator).name,  # type: ignore[arg-type]
            logger=False,
            callbacks=None,
            plugins=None,
            default_root_dir=None,
            use_distributed_sampler=False,
            inference_mode=True,
            reload_dataloaders_every_n_epochs=0,
            enable_checkpointing=True,
            barebones=False,
            model_registry=None,
            enable_autolog_hparams=False,
            **kwargs,
        )


class EpochLines(Callback):
    """One line an epoch on stderr, for where a progress bar cannot be drawn."""

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = "  ".join(
            f"{name} {metrics[name]:.4f}" for name in ("train/loss", "val/loss", "val/accuracy") if name in metrics
        )
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", file=sys.stderr)


class Cli(LightningCLI):
    """The four verbs, each bound to one run folder: runs/<task>/seed<k>/."""

    run: RunFolder
    recorder: Recorder
    claimed = False
    """Whether this process made the run folder, and may remove it again."""
    kept_metrics: Path | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--task", type=str | None, default=None, help="Name of the task; by default <dataset>_<arch>."
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of the runs.")
        parser.add_argument(
            "--overwrite", action="store_true", help="Replace an earlier run of the same task and seed."
        )
        parser.add_argument(
            "--test", action="store_true", help="After `fit`: score the best checkpoint on every test image, once."
        )
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON document.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """One line for what does not parse, with the nearest key where an unknown one was given."""
        try:
            super().parse_arguments(parser, args)
            seed = self.config[self.config["subcommand"]]["seed_everything"]
            if seed is False or not 0 <= seed < 2**32:
                raise CnnbenchError(
                    f"seed_everything is {seed}: a run is named by its seed, a whole number from 0 to 2**32 - 1"
                )
        except ArgumentError as error:
            verb = sys.argv[1]
            keys = [action.dest for action in self._subcommand_parsers[verb]._actions]
            raise CnnbenchError(f"{verb}: {explained(str(error), keys)}") from None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, less the arguments that we decide: checkpoints are read as plain data, results printed once."""
        decided = {"weights_only", "verbose"}
        return {verb: skipped | decided for verb, skipped in LightningCLI.subcommands().items()}

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: Lightning would let a checkpoint's hyper-parameters overrule the user's flags."""

    def before_instantiate_classes(self) -> None:
        """Refuse unknown names, then bind this run to its folder."""
        verb, config = self.subcommand, self._config
        devices, accelerator = config["trainer.devices"], config["trainer.accelerator"]
        cores = os.cpu_count() or 1
        if accelerator != "gpu" and str(devices).isdigit() and int(devices) > max(cores, torch.cuda.device_count()):
            raise CnnbenchError(f"trainer.devices is {devices}: this machine has {cores} CPU cores")
        architecture[config["model.arch"]]
        datasets.dataset[config["data.dataset"]]
        self.task = task_name(run_config(config, self._parser(verb)))
        self.run = RunFolder(Path(config["runs_dir"]) / self.task / f"seed{config['seed_everything']}")
        if verb == "fit":
            self.resume = self._given_checkpoint(self.run.last) if config["ckpt_path"] else None
        else:
            self.resume = self._given_checkpoint(self.run.best)
        if self.resume:
            made = open_checkpoint(self.resume)["cnnbench"]
            if made["arch"] != config["model.arch"]:
                raise CnnbenchError(
                    f"checkpoint {self.resume} holds {made['arch']}, but the config names {config['model.arch']}: "
                    "use the same --model.arch"
                )
        if verb == "fit" and self.resume and self.resume.parent.resolve() != self.run.path.resolve():
            raise CnnbenchError(
                f"{self.resume} is not of this run, which lies in {self.run.path}: name its --task, --runs_dir and seed"
            )

    @property
    def _config(self) -> Any:
        return self.config[self.subcommand]

    def _given_checkpoint(self, default: Path) -> Path:
        """The file --ckpt_path names; "best" and "last" are this run's."""
        given = self._config["ckpt_path"]
        known = {None: default, "best": self.run.best, "last": self.run.last}
        return known[given] if given in known else find(given) if Path(given).is_dir() else Path(given)

    @rank_zero_only
    def _claim(self) -> None:
        """Make the run folder ours, or refuse before any time is spent."""
        path = self.run.path
        if self.run.last.exists() and not self.resume:
            if not self._config["overwrite"]:
                raise CnnbenchError(
                    f"{path} already holds a run: give --overwrite to replace it, --ckpt_path last to go on with it, "
                    "or another --seed_everything, --task or --runs_dir"
                )
            if self.replaced.exists():
                raise CnnbenchError(
                    f"{self.replaced} is in the way: an earlier --overwrite did not finish; move or remove it"
                )
            path.rename(self.replaced)
        self.claimed = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise CnnbenchError(f"cannot write to {path}: {error.strerror}; choose another --runs_dir") from None

    def _keep_metrics(self) -> None:
        """Set the metrics of an interrupted run aside as metrics.1.csv, ...: Lightning would start that file anew."""
        if self.run.metrics.exists():
            number = next(n for n in itertools.count(1) if not self.run.metrics.with_suffix(f".{n}.csv").exists())
            self.kept_metrics = self.run.metrics.rename(self.run.metrics.with_suffix(f".{number}.csv"))

    @rank_zero_only
    def _give_back(self) -> None:
        """After a failed `fit`: remove what is of no use, and put an earlier run back in its place."""
        if self.kept_metrics and not self.run.metrics.exists():
            self.kept_metrics.rename(self.run.metrics)
        if self.claimed and not self.run.last.exists():  # with last.ckpt there, the new run can go on
            shutil.rmtree(self.run.path, ignore_errors=True)
            if self.replaced.exists():
                self.replaced.rename(self.run.path)
            elif self.run.path.parent.is_dir() and not any(self.run.path.parent.iterdir()):
                self.run.path.parent.rmdir()

    @property
    def replaced(self) -> Path:
        """Where the earlier run waits while `fit --overwrite` works."""
        return self.run.path.with_name(self.run.path.name + ".replaced")

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except BaseException as error:
            self._give_back()
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).strip().splitlines()[0]
                raise CnnbenchError(
                    f"model.compile: torch.compile cannot work here: {reason}", Exit.ENVIRONMENT
                ) from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer with our callbacks and loggers, writing into the run folder alone."""
        flags = {**self.config_init[self.subcommand]["trainer"], **kwargs}
        config = run_config(self._config, self._parser(self.subcommand))
        precision = choose(flags["precision"], flags["accelerator"])
        flags["precision"] = precision.name
        seed = config.seed_everything
        self.recorder = Recorder(self.run, self.task, seed, config, precision.reason, self.resume)
        fitting = self.subcommand == "fit"
        flags["enable_progress_bar"] = fitting and flags["enable_progress_bar"] is not False and sys.stderr.isatty()
        callbacks: list[Callback] = [self.recorder]
        loggers: list[Logger] = []
        if flags["enable_progress_bar"]:
            callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
        elif fitting:
            callbacks.append(EpochLines())
        if fitting and not flags["fast_dev_run"]:
            callbacks.append(BestAndLast(self.run))
            parent, name = self.run.path.parent, self.run.path.name
            loggers = [CSVLogger(parent, "", version=name), TensorBoardLogger(parent, "", version=name)]
        try:
            return Trainer(**flags, callbacks=callbacks, logger=loggers, default_root_dir=self.run.path)
        except MisconfigurationException as error:
            # Lightning's word for a flag that it cannot honour, or for a device that this machine lacks
            absent = flags["accelerator"] not in ("auto", "cpu")
            raise _refused(error, Exit.ENVIRONMENT if absent else Exit.USAGE) from None
        except (ValueError, RuntimeError) as error:
            raise _refused(error, Exit.USAGE) from None

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        kwargs |= {"ckpt_path": self.resume, "weights_only": True}
        if subcommand in ("validate", "test"):
            kwargs["verbose"] = False  # the result is printed in one place, by after_<verb>
        return kwargs

    @rank_zero_only
    def before_fit(self) -> None:
        if not self._config["trainer.fast_dev_run"]:
            self._claim()
            self._keep_metrics()
            if not (self.resume and self.run.config.exists()):  # a run that was killed early leaves one of its own
                parser = self._parser(self.subcommand)
                parser.save(self._config, self.run.config, skip_none=False, multifile=False, overwrite=True)

    def after_fit(self) -> None:
        """Say what was learnt; with --test, score it in the same processes."""
        testing = self._config["test"] and not self._config["trainer.fast_dev_run"]
        if self.recorder.record:
            shutil.rmtree(self.replaced, ignore_errors=True)
            if not (testing and self._config["json"]):  # one document
                self._say_fitted()
        if testing:
            self.recorder.checkpoint = self.run.best
            self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=self.run.best, weights_only=True, verbose=False
            )
            self.after_test()

    @rank_zero_only
    def _say_fitted(self) -> None:
        assert self.recorder.record is not None
        fit = self.recorder.record.fit
        self._print(
            msgspec.to_builtins(self.recorder.record),
            f"{self.task} seed {self.recorder.seed}: val accuracy {fit.val_accuracy:.2%} on {fit.val_images} images "
            f"(epoch {fit.best_epoch + 1} of {fit.epochs}), {fit.train_seconds:.1f} s; {self.run.path}",
        )

    @rank_zero_only
    def after_validate(self) -> None:
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        images = len(self.datamodule.loaded.val)
        accuracy = f"val accuracy {metrics['val/accuracy']:.2%}, loss {metrics['val/loss']:.4f}, {images} images"
        self._print({**metrics, "images": images, "checkpoint": str(self.resume)}, f"{self.resume}: {accuracy}")

    @rank_zero_only
    def after_test(self) -> None:
        record = self.recorder.record
        assert record is not None
        assert record.test is not None
        test = record.test
        accuracy = f"test accuracy {test.accuracy:.2%} ({test.correct} of {test.images} images), loss {test.loss:.4f}"
        noted = "" if self.recorder.recorded else "; not recorded: not the run's best checkpoint on the whole split"
        self._print(msgspec.to_builtins(record), f"{record.task} seed {record.seed}: {accuracy}{noted}")

    @rank_zero_only
    def after_predict(self) -> None:
        assert self.recorder.predictions is not None
        assert self.resume is not None
        path = self.resume.with_name("predict.parquet")
        write_predictions(path, self.recorder.predictions)
        images = len(self.recorder.predictions)
        self._print({"predictions": str(path), "images": images}, f"{path}: predictions of {images} test images")

    def _print(self, record: dict[str, Any], text: str) -> None:
        print(json.dumps(record, indent=2) if self._config["json"] else text)


def task_name(config: RunConfig) -> str:
    """What a run of this configuration is called where nothing names it."""
    data = config.data.name or datasets.labelled(config.data.dataset, config.data.split)
    return config.task or f"{data}_{config.model.arch}".replace("/", "-")  # of torchvision/<name>


def run_config(config: Any, parser: LightningArgumentParser) -> RunConfig:
    """A configuration as records keep it."""
    return msgspec.json.decode(parser.dump(config, format="json", skip_none=False), type=RunConfig)


def _refused(error: Exception, code: Exit) -> CnnbenchError:
    return CnnbenchError(f"the trainer refuses its flags: {str(error).strip().splitlines()[0]}", code)


class ParsersOnly(Cli):
    """Stops once the parsers are made."""

    class Made(Exception):  # noqa: N818 - it carries a result, not an error
        """Carries them out of LightningCLI's constructor."""

        def __init__(self, parsers: dict[str, LightningArgumentParser]) -> None:
            super().__init__()
            self.parsers = parsers

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Hand over the parsers instead of parsing."""
        raise ParsersOnly.Made(self._subcommand_parsers)


VERBS = {
    "fit": "Train a network on the training images; writes runs/<task>/seed<k>/.",
    "validate": "Score the run's best checkpoint, or --ckpt_path, on the validation images.",
    "test": "Score the run's best checkpoint, or --ckpt_path, on every test image, once.",
    "predict": "Write the predictions of the run's best checkpoint, or of --ckpt_path, for every test image.",
}


def run(arguments: list[str]) -> None:
    """Run one of the four verbs.

    Args:
        arguments: The command line after the program's name, the verb first.

    Raises:
        CnnbenchError: Anything the user can mend.
    """
    _quiet()
    sys.argv[1:] = arguments  # what DDP starts its other processes with; LightningCLI reads it when args is None
    _cli(None)


def subparsers() -> dict[str, LightningArgumentParser]:
    """The parsers of the four verbs, without running anything: for shell completion."""
    try:
        _cli([], ParsersOnly)
    except ParsersOnly.Made as made:
        return made.parsers
    raise AssertionError("LightningCLI no longer parses in its constructor")


def changed_flags(config: RunConfig) -> list[str]:
    """The flags of `fit` that give a recorded configuration: all that are not the defaults.

    What depends on the machine alone is left out, and a folder of images is named FOLDER.
    """
    defaults = subparsers()["fit"].get_defaults().as_dict()
    flags = []
    for part, values in (("model", config.model), ("data", config.data), ("trainer", config.trainer)):
        for key, value in msgspec.to_builtins(values).items():
            said = value is not None and value != defaults[part].get(
                key, value
            )  # of an older run, None may be no default
            if said and key not in ("root", "download"):
                text = value if isinstance(value, str) else json.dumps(value)
                flags.append(f"--{part}.{key} {'FOLDER' if key == 'folder' else shlex.quote(text)}")
    return [*flags, *[f"--task {shlex.quote(str(config.task))}"] * bool(config.task)]


def _cli(args: list[str] | None, kind: type[Cli] = Cli) -> Cli:
    strict = {"exit_on_error": False, "allow_abbrev": False}
    return kind(
        Classifier,
        ImageData,
        save_config_callback=None,
        trainer_class=TrainerFlags,
        seed_everything_default=1,
        parser_kwargs={"exit_on_error": False, **{verb: {**strict, "description": VERBS[verb]} for verb in VERBS}},
        auto_configure_optimizers=False,
        args=args,
    )


def _quiet() -> None:
    """Keep stderr for what concerns the user."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("GLOO_LOG_LEVEL", "ERROR")
    for message in (
        ".*LeafSpec.*",  # Lightning 2.6.6 uses a name that torch 2.14 renamed; nothing a user can do
        ".*does not have many workers.*",  # our loader has none, on purpose
        ".*callbacks used to create the checkpoint.*",  # `test` needs no ModelCheckpoint
        ".*predict returned None.*",  # the predictions are gathered and written whole
        "Grad strides do not match bucket view strides.*",  # DDP on 1 x 1 convolutions; speed alone
        ".*smaller than the logging interval.*",  # we log by epoch
        ".*Checkpoint directory .* exists and is not empty.*",  # we have looked
        ".*Experiment logs directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message)
