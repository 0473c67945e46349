"""Image classifiers: their flags, the forward pass, and what they take over from others."""

import dataclasses
import inspect
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlcore import paths
from dlcore.data import ImageData, Split
from dlcore.data.statistics import channel_moments, spread
from dlcore.errors import InputError, choose
from dlcore.models import IMAGE_MODELS, ImageModel
from dlcore.models.cnn.torch_names import family_of
from dlcore.models.cnn.torch_weights import from_torch, to_torch
from dlcore.models.torch_files import read_torch_file, write_torch_file
from dlcore.nn.augment import STEPS, Augment, augmentation, principal_colours
from dlcore.nn.views import VIEWS
from dlcore.train.checkpoint import load_variables
from dlcore.train.transplant import transplant
from dlcore.types import TrainState
from experiments.common.flags import adopt, define_remat_flag, say

FLAGS = flags.FLAGS
SAMPLE = 10_000  # images that are enough to measure on
# Of ImageNet's red, green and blue, as torchvision's weights expect images to be scaled.
IMAGENET = (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]))
TOP = 2  # modules before the output that --transfer=top trains
Forward = Callable[..., Any]


def define_image_flags() -> None:
    """Defines the flags of image classifiers."""
    flags.DEFINE_string("model", "lenet5", f"one of {', '.join(IMAGE_MODELS)}")
    flags.DEFINE_multi_string(
        "option", [], "NAME=VALUE of the model, such as width=0.125; a wrong name lists all"
    )
    flags.DEFINE_integer("image_size", None, "side in pixels; default the model's or data's own", 1)
    flags.DEFINE_string(
        "augment", "affine",
        f"of training images, with numbers where wanted, as flip,crop:4; of {', '.join(STEPS)}",
    )  # fmt: skip
    define_remat_flag()
    flags.DEFINE_list("classes", None, "take the examples of these alone")
    flags.DEFINE_integer("examples", None, "take so many training examples, drawn at random", 1)
    flags.DEFINE_float("label_smoothing", 0.0, "share of the target spread over all classes", 0, 1)
    flags.DEFINE_float("auxiliary_weight", 0.3, "of auxiliary heads' losses; 0.3 is GoogLeNet's", 0)
    flags.DEFINE_enum(
        "moments", "data", ["data", "imagenet"], "of the pixels, by which images are scaled"
    )
    flags.DEFINE_enum("views", "one", list(VIEWS), "of a test image that are averaged over")
    flags.DEFINE_string(
        "init_from", None, "start from the weights of this run, or of a .safetensors or .pth file"
    )
    flags.DEFINE_string("export", None, ".safetensors file for the weights by torchvision's names")
    flags.DEFINE_enum(
        "transfer", None, ["head", "top", "all"],
        f"with --init_from: a new output layer; train it alone, with {TOP} modules before, or all",
    )  # fmt: skip
    adopt(__name__)


def build_model(spec: ImageModel, num_classes: int) -> nn.Module:
    """The model of --model with its --option.

    Raises:
        InputError: for an option that the model does not have, a value that is none, and when
            --export has no names for the model.
    """
    known = inspect.signature(spec.build).parameters
    possible = sorted(set(known) - {"num_classes", "remat", "parent", "name"})
    options = {}
    for given in FLAGS.option:
        name, _, value = given.partition("=")
        if name not in possible:
            raise choose(f"option of {FLAGS.model}", name, possible or ["none"])
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
        default = known[name].default
        if isinstance(default, tuple) and isinstance(options[name], list):
            options[name] = tuple(options[name])
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if default is not None and type(options[name]) not in kinds:
            raise InputError(
                f"--option={given}: {name} of {FLAGS.model} is like {json.dumps(default)}, "
                "its default; give such a value"
            )
    if FLAGS.check and "scan_from" in known:
        options["scan_from"] = 1_000_000  # The tables of layers do not look into loops.
    if FLAGS["remat"].present:
        if "remat" not in known:
            raise InputError(f"--model={FLAGS.model} has no --remat; residual and dense nets have")
        options["remat"] = FLAGS.remat
    model = spec.build(num_classes=num_classes, **options)
    if FLAGS.export is not None:
        family_of(model)  # Says now, not after the training, that there are no names for it.
    return model


def restrict(data: ImageData) -> ImageData:
    """The data of --classes, with --examples to train on; labels stay as they are.

    Raises:
        InputError: for a class that there is not, or more examples than there are.
    """
    train, test = data.train, data.test
    if FLAGS.classes is not None:
        for name in FLAGS.classes:
            if name not in data.class_names:
                raise choose("class", name, data.class_names)
        wanted = [data.class_names.index(name) for name in FLAGS.classes]
        train, test = (
            split.subset(np.flatnonzero(np.isin(_labels(split), wanted))) for split in (train, test)
        )
    if FLAGS.examples is not None:
        if FLAGS.examples > len(train):
            raise InputError(f"--examples={FLAGS.examples}, but there are {len(train)} to train on")
        order = np.random.default_rng(FLAGS.seed).permutation(len(train))
        train = train.subset(np.sort(order[: FLAGS.examples]))
    return dataclasses.replace(data, train=train, test=test)


def _labels(split: Split) -> np.ndarray:
    parts = range(0, len(split), SAMPLE)
    return np.concatenate(
        [split.gather(np.arange(i, min(i + SAMPLE, len(split))))["label"] for i in parts]
    )


def make_augment(data: ImageData) -> Augment:
    """The augmentation of --augment."""
    colours = None
    if "lighting" in FLAGS.augment:
        sample = spread(data.train, SAMPLE)
        colours = principal_colours(sample.gather(np.arange(len(sample)))["image"])
    return augmentation(FLAGS.augment, num_classes=data.num_classes, colours=colours)


def make_forward(model: nn.Module, data: ImageData) -> Forward:
    """(variables, float images of 0..255, ...) -> what the model's apply gives.

    Images are brought to mean 0 and deviation 1 per channel, as measured on at most `SAMPLE`
    training images, or on ImageNet. --precision is the type of parameters and activations on the
    way.

    Raises:
        InputError: for --moments=imagenet of images without colours.
    """
    moments = channel_moments(spread(data.train, SAMPLE)) if FLAGS.moments == "data" else IMAGENET
    if len(moments[0]) != data.image_shape[-1]:
        raise InputError(
            f"--moments=imagenet are of 3 channels, the images of {data.name} have "
            f"{data.image_shape[-1]}; leave it out"
        )
    mean, deviation = (np.float32(moment)[None, None, None] for moment in moments)

    def forward(variables: Any, images: jax.Array, **how: Any) -> Any:
        x = (images - mean) / jnp.maximum(deviation, 1.0)
        if FLAGS.precision == "bfloat16":
            x, params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (x, variables["params"]))
            variables = {**variables, "params": params}
        return model.apply(variables, x, **how)

    return forward


def frozen_rules(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[tuple[str, bool], ...]:
    """Which parameters --transfer leaves as they are."""
    if FLAGS.transfer is None:
        return ()
    if FLAGS.init_from is None:
        raise InputError("--transfer without --init_from would freeze random weights; give both")
    if FLAGS.transfer == "all":
        return ()
    modules: list[str] = []

    def trace(images: jax.Array) -> None:
        # Within a trace the modules are in order of execution; trees sort them.
        modules.extend(model.init(jax.random.key(0), images)["params"])

    jax.eval_shape(trace, jnp.zeros((1, *image_shape)))
    body = [name for name in modules if name != "output"]
    trained = ["output", *(body[-TOP:] if FLAGS.transfer == "top" else ())]
    frozen = [name for name in body if name not in trained]
    if not frozen:
        raise InputError(f"{FLAGS.model} has only {len(body)} modules; --transfer=all trains them")
    say(f"training {', '.join(trained)}; {len(frozen)} modules are frozen")
    return (*((f"^{re.escape(name)}/", False) for name in trained), ("", True))


def take_over(state: TrainState, model: nn.Module) -> TrainState:
    """The state with the weights of --init_from, and a report of what matched.

    Raises:
        InputError: when nothing can be read there, or nothing matches.
    """
    if FLAGS.init_from is None:
        return state
    source = _read(pathlib.Path(FLAGS.init_from), model)
    target = {"params": state.params, **state.model_state}
    rules: tuple[tuple[str, str | None], ...] = (("^(.*)$", r"\1"),)
    if FLAGS.transfer is not None:
        rules = (("^params/output/", None), *rules)
    new, found = transplant(source, target, rules)
    if all(path.startswith("params/output/") for path in found.restored):
        raise InputError(
            f"no weight of {FLAGS.init_from} fits {FLAGS.model}: "
            f"it has {_some(paths.leaves_by_path(source))}; "
            f"the model wants {_some(paths.leaves_by_path(target))}"
        )
    say(f"{FLAGS.init_from}: {found}")
    params = new.pop("params")
    return state.replace(params=params, model_state=new)


def export(model: nn.Module, state: TrainState) -> None:
    """Writes the weights to --export."""
    if FLAGS.export is not None:
        variables = {"params": state.params, **state.model_state}
        write_torch_file(FLAGS.export, to_torch(model, variables))
        say(f"weights: {FLAGS.export}")


def _read(path: pathlib.Path, model: nn.Module) -> Any:
    """The variables of a run, or of a file of PyTorch's."""
    if path.is_file():
        return from_torch(model, read_torch_file(path))
    folder = path / "checkpoints"
    return load_variables(folder if folder.is_dir() else path)


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
