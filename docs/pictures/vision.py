"""Pictures of networks for images, of detection, verification, style and dreams."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dlcore import boxes as geometry
from dlcore import metrics
from dlcore.check import layer_table
from dlcore.data.builders.digit_scenes import draw_scene
from dlcore.losses import gram_matrix
from dlcore.models import image_spec
from dlcore.models.detection import anchors, selective_search, suppress
from pictures.drawing import COLOURS, add, axes, picture, pictures
from pictures.samples import digits, photograph


@functools.cache
def _table(name: str) -> list:
    """The layers of a network with a thousand outputs that have parameters, or change the map."""
    spec = image_spec(name)
    side, classes = (32, 10) if name == "lenet5" else (spec.image_size or 32, 1000)
    # The second classifiers of GoogLeNet are there in training only.
    options = {"auxiliary": False} if name == "googlenet" else {}
    model = spec.build(num_classes=classes, **options)
    x = jax.ShapeDtypeStruct((1, side, side, 1 if name == "lenet5" else 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return [row for row in layer_table(model.apply, variables, x) if row.shape]


def _architecture(name: str) -> Figure:
    rows = _table(name)
    figure, found = axes(1, 2, height=3.0)
    place = np.arange(len(rows))
    sides = [row.shape[1] if len(row.shape) == 4 else 1 for row in rows]
    channels = [row.shape[-1] for row in rows]
    found[0].step(place, sides, where="mid", label="side of the map")
    found[0].step(place, channels, where="mid", label="channels")
    found[0].set_yscale("log", base=2)
    found[0].legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.25))
    found[1].bar(place, [row.parameters for row in rows], color=COLOURS[2])
    found[1].set(xlabel="layer", ylabel="parameters")
    total = sum(row.parameters for row in rows)
    found[1].set_title(f"{total:,} parameters in all", fontsize=9)
    found[0].set_xticks([])
    return figure


for _term, _name in {
    "LeNet-5": "lenet5",
    "AlexNet": "alexnet",
    "VGG": "vgg16",
    "GoogLeNet": "googlenet",
    "ResNet": "resnet18",
    "DenseNet": "densenet121",
}.items():
    add(
        f"layers_{_name}",
        (_term,),
        f"The layers of {_name} from left to right: above, the side of the map, which falls, and "
        "the number of channels, which grows; below, the parameters of each layer and their sum.",
        functools.partial(_architecture, _name),
    )


@picture(
    "Parameter count",
    alt="Bars of the parameters of six networks in millions: VGG-16 has 138, AlexNet 61, "
    "ResNet-18 12, DenseNet-121 8 and GoogLeNet 7; LeNet-5 has 0.06.",
)
def parameter_counts() -> Figure:
    figure, (ax,) = axes(height=2.3)
    names = ("lenet5", "googlenet", "densenet121", "resnet18", "alexnet", "vgg16")
    totals = [sum(row.parameters for row in _table(name)) / 1e6 for name in names]
    ax.barh(names, totals)
    for number, total in enumerate(totals):
        ax.text(total + 1, number, f"{total:.2f}", va="center", fontsize=9)
    ax.set(xlabel="million parameters", xlim=(0, 155))
    return figure


@picture(
    "Receptive field",
    alt="A photograph of 224 pixels with squares around its middle: the parts that a unit sees "
    "after each of VGG-16's poolings, from 6 pixels to 212.",
)
def receptive_fields() -> Figure:
    figure, (ax,) = axes(height=3.2, bare=True)
    ax.imshow(photograph(224), alpha=0.7)
    seen = [row.receptive_field[0] for row in _table("vgg16") if "pool" in row.operation]
    for number, side in enumerate(seen):
        colour = COLOURS[number % 6]
        ax.add_patch(
            Rectangle([112 - side / 2] * 2, side, side, fill=False, edgecolor=colour, lw=2)
        )
        ax.text(228, 30 + 36 * number, f"pooling {number + 1}: {side} pixels", color=colour)
    ax.set_xlim(0, 380)
    return figure


@picture(
    "Convolutional neural network",
    alt="A digit, and maps of it after two convolutions with poolings: maps get smaller and "
    "more, and what they answer to gets less like a picture.",
)
def maps() -> Figure:
    image = jnp.asarray(digits()[0][0]).repeat(4, 0).repeat(4, 1)[None, :, :, None]
    model = image_spec("lenet5").build(num_classes=10)
    _, activations = model.init_with_output(jax.random.key(3), image)[0]
    whole = {name: a for name, a in activations.items() if a.ndim == 4}
    first, last = [*whole][0], [*whole][-1]
    shown = [image[0, :, :, 0], *(whole[first][0, :, :, k] for k in range(3))]
    shown += [whole[last][0, :, :, k] for k in range(4)]
    titles = ["digit", *([f"after {first}"] * 3), *([f"after {last}"] * 4)]
    return pictures(shown, titles, columns=4, cmap="gray")


def _outline(ax: Axes, box: np.ndarray, colour: str, text: str = "", style: str = "-") -> None:
    y, x, below, right = (float(v) for v in box)
    ax.add_patch(
        Rectangle((x, y), right - x, below - y, fill=False, edgecolor=colour, lw=1.8, ls=style)
    )
    if text:
        ax.text(x, y - 1, text, color="white", backgroundcolor=colour, fontsize=8, va="bottom")


def _shown(ax: Axes, image: np.ndarray, title: str = "") -> None:
    ax.imshow(image)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()


@picture(
    "Object detection",
    "Classification with localisation",
    "Bounding box",
    alt="A scene with one handwritten digit and a scene with several, each digit in its box "
    "with its class.",
)
def boxes_of_scenes() -> Figure:
    figure, found = axes(2, height=2.8)
    for ax, (fewest, most), title in zip(
        found, ((1, 1), (4, 6)), ("one object", "all objects"), strict=True
    ):
        scene = draw_scene("test", 3, fewest, most)
        _shown(ax, scene.image, title)
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            _outline(ax, box, COLOURS[label % 6], str(label))
    return figure


@picture(
    "Landmark detection",
    alt="A scene with a turned digit and four numbered points: the corners of its frame.",
)
def landmarks() -> Figure:
    figure, (ax,) = axes(height=2.6)
    scene = draw_scene("test", 5, 1, 1)
    _shown(ax, scene.image)
    for number, (y, x) in enumerate(scene.corners[0]):
        ax.plot(x, y, "o", color=COLOURS[number], markersize=7, markeredgecolor="white")
        ax.text(
            x + 2,
            y - 2,
            str(number + 1),
            color="white",
            backgroundcolor=COLOURS[number],
            fontsize=8,
        )
    return figure


@picture(
    "IoU",
    alt="Three pairs of boxes that overlap by an intersection over union of 0.14, 0.5 and 0.82.",
)
def overlaps() -> Figure:
    figure, found = axes(3, height=1.9, bare=True)
    a = np.array([0.0, 0, 4, 4])
    for ax, shift in zip(found, (2.0, 0.734, 0.2), strict=True):
        b = a + shift
        for box, colour in ((a, COLOURS[0]), (b, COLOURS[1])):
            ax.add_patch(
                Rectangle(box[1::-1], 4, 4, alpha=0.35, facecolor=colour, edgecolor=colour)
            )
        ax.set(xlim=(-0.2, 6.2), ylim=(6.2, -0.2), aspect="equal")
        ax.set_title(f"IoU {float(geometry.iou(a, b)):.2f}", fontsize=9)
    return figure


@picture(
    "Anchor boxes",
    alt="Heights and widths of the boxes of 60 scenes as points, and the five shapes that "
    "k-means by IoU finds among them, as crosses.",
)
def anchor_shapes() -> Figure:
    scenes = [draw_scene("train", index).boxes for index in range(60)]
    sizes = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in scenes])
    fitted = anchors.fit(sizes, 5)
    figure, (ax,) = axes(height=2.8)
    ax.plot(sizes[:, 1], sizes[:, 0], ".", color="#999999", markersize=4)
    ax.plot(fitted.shapes[:, 1], fitted.shapes[:, 0], "X", color=COLOURS[1], markersize=10)
    ax.set(
        xlabel="width, pixels",
        ylabel="height",
        title=f"mean IoU with the nearest shape {fitted.mean_iou:.2f}",
    )
    return figure


@picture(
    "Non-max suppression",
    alt="A scene with twelve boxes around its digits before suppression, and with one box for "
    "each digit after it.",
)
def suppression() -> Figure:
    scene, rng = draw_scene("test", 8, 2, 3), np.random.default_rng(0)
    count = len(scene.boxes)
    moved = np.repeat(scene.boxes, 4, 0) + rng.normal(0, 1.2, (4 * count, 4))
    scores = rng.uniform(0.5, 0.95, 4 * count)
    labels = np.repeat(np.asarray(scene.labels), 4)
    kept = suppress(
        jnp.asarray(moved)[None],
        jnp.asarray(scores)[None],
        jnp.asarray(labels, jnp.int32)[None],
        most=6,
    )
    figure, found = axes(2, height=2.8)
    _shown(found[0], scene.image, "before")
    _shown(found[1], scene.image, "after")
    for box, label in zip(moved, labels, strict=True):
        _outline(found[0], box, COLOURS[label % 6])
    for box, score, label in zip(kept.boxes[0], kept.scores[0], kept.labels[0], strict=True):
        if score > 0:
            _outline(found[1], np.asarray(box), COLOURS[int(label) % 6], f"{float(score):.2f}")
    return figure


@picture(
    "Mean average precision",
    alt="Precision by recall of a ranking of 40 detections, a falling line of teeth; the area "
    "under it is the average precision.",
)
def precision_by_recall() -> Figure:
    rng = np.random.default_rng(1)
    right = rng.random(40) < np.linspace(0.98, 0.25, 40)
    scores = np.linspace(1, 0, 40)
    hits = np.cumsum(right)
    figure, (ax,) = axes(height=2.5)
    recall, precision = hits / right.sum(), hits / np.arange(1, 41)
    ax.step(recall, precision, where="pre")
    ax.fill_between(recall, precision, step="pre", alpha=0.2)
    area = float(metrics.average_precision(scores[:, None], right[:, None].astype(int))[0])
    ax.set(
        xlabel="recall", ylabel="precision", ylim=(0, 1.05), title=f"average precision {area:.2f}"
    )
    return figure


@picture(
    "YOLO",
    alt="A scene under a grid of six by six cells; the cells that hold the middle of a digit "
    "are filled, and each answers for the box around it.",
)
def cells() -> Figure:
    figure, (ax,) = axes(height=2.9)
    scene = draw_scene("test", 11, 3, 5)
    _shown(ax, scene.image)
    for line in range(0, 97, 16):
        ax.plot([line - 0.5] * 2, [-0.5, 95.5], color="white", linewidth=0.8)
        ax.plot([-0.5, 95.5], [line - 0.5] * 2, color="white", linewidth=0.8)
    for box, label in zip(scene.boxes, scene.labels, strict=True):
        colour = COLOURS[label % 6]
        y, x = ((box[:2] + box[2:]) / 2 // 16 * 16) - 0.5
        ax.add_patch(Rectangle((x, y), 16, 16, facecolor=colour, alpha=0.45))
        _outline(ax, box, colour, str(label))
    return figure


@picture(
    "R-CNN",
    alt="A scene with the first forty candidates of selective search: boxes of all sizes, some "
    "of which fit the digits.",
)
def candidates() -> Figure:
    figure, (ax,) = axes(height=2.8)
    scene = draw_scene("test", 11, 3, 5)
    _shown(ax, scene.image)
    for number, box in enumerate(selective_search.search(scene.image)[:40]):
        _outline(ax, box, COLOURS[number % 6])
    return figure


@picture(
    "Faster R-CNN",
    alt="A scene and, around one cell of a map, nine anchors: three sizes in three shapes.",
)
def proposals() -> Figure:
    figure, (ax,) = axes(height=2.8)
    _shown(ax, draw_scene("test", 11, 3, 5).image)
    shapes = anchors.shapes_of((16, 32, 64))
    for number, box in enumerate(anchors.grid((1, 1), 96, shapes)):
        _outline(ax, box, COLOURS[number // 3])
    ax.plot(48, 48, "o", color="white")
    return figure


@functools.cache
def _pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances of pairs of digits, and whether they are of one class; the ROC's own data."""
    images, labels = digits()
    flat = images[:200].reshape(200, -1)
    distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    upper = np.triu_indices(200, 1)
    return distances[upper], (labels[:200, None] == labels[None, :200])[upper], distances


@picture(
    "Face verification",
    alt="On the left histograms of the distances of pairs of one class and of two, which "
    "overlap; on the right the receiver operating characteristic that thresholds between "
    "them give.",
)
def verification() -> Figure:
    distances, same, _ = _pairs()
    curve = metrics.roc(distances, same)
    figure, found = axes(2)
    for chosen, name in ((same, "same"), (~same, "different")):
        found[0].hist(distances[chosen], 40, density=True, alpha=0.6, label=name)
    found[0].set(xlabel="distance of two digits", yticks=[])
    found[0].legend()
    found[1].plot(curve.false_accept, curve.true_accept)
    found[1].plot([0, 1], [0, 1], "--", color="#999999", linewidth=0.8)
    found[1].set(xlabel="false accepts", ylabel="true accepts", title=f"area {curve.auc:.3f}")
    return figure


@picture(
    "Face recognition",
    "One-shot learning",
    alt="One digit to recognise, and one example of each of ten classes in order of their "
    "distance; the nearest is of the same class.",
)
def gallery() -> Figure:
    images, labels = digits()
    examples = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]
    asked = 60
    distances = np.linalg.norm((images[examples] - images[asked]).reshape(10, -1), axis=1)
    order = np.argsort(distances)[:7]
    shown = [images[asked], *(images[examples[k]] for k in order)]
    titles = [f"asked: {labels[asked]}", *(f"{k}: {distances[k]:.1f}" for k in order)]
    return pictures(shown, titles, columns=4)


@picture(
    "Triplet loss",
    alt="An anchor with a positive and a negative before and after learning: before, the "
    "negative is nearer; after, the positive is nearer by more than the margin, which is "
    "drawn as a ring.",
)
def triplet() -> Figure:
    figure, found = axes(2, height=2.3, bare=True)
    cases = ((2.0, (1.6, 1.2)), (1.3, (-0.2, 0.7))), ((1.0, (0.8, 0.6)), (2.2, (-1.6, 1.5)))
    for ax, (positive, negative), title in zip(found, cases, ("before", "after"), strict=True):
        for place, colour, name in (
            (positive[1], COLOURS[2], "positive"),
            (negative[1], COLOURS[1], "negative"),
        ):
            ax.plot([0, place[0]], [0, place[1]], color=colour)
            ax.plot(*place, "o", color=colour, markersize=9)
            ax.text(place[0], place[1] + 0.22, name, ha="center", fontsize=9)
        ax.plot(0, 0, "s", color="black", markersize=9)
        ax.text(0, -0.5, "anchor", ha="center", fontsize=9)
        distance = float(np.hypot(*positive[1]))
        for radius, style in ((distance, ":"), (distance + 0.5, "--")):
            angle = np.linspace(0, np.pi, 60)
            ax.plot(radius * np.cos(angle), radius * np.sin(angle), style, color="#888888", lw=1)
        ax.set(xlim=(-2.6, 2.6), ylim=(-0.7, 2.7), aspect="equal", title=title)
    return figure


def _shallow(image: np.ndarray) -> jax.Array:
    """Answers of 16 random filters of 5 x 5 to a picture, [1, H, W, 16]."""
    kernel = jax.random.normal(jax.random.key(0), (5, 5, 3, 16)) / 9
    x = jnp.asarray(image, jnp.float32)[None] / 255 - 0.5
    return jax.nn.relu(
        jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )


@picture(
    "Style matrix",
    "Style cost",
    "Content cost",
    "Neural style transfer",
    alt="A temple and a flower, and under each its style matrix of 16 by 16 numbers, which "
    "differ; the matrix of the temple with its tiles shuffled is nearly as before.",
)
def style_matrices() -> Figure:
    temple, flower = photograph(128), photograph(128, "flower.jpg")
    tiles = temple.reshape(8, 16, 8, 16, 3).swapaxes(1, 2).reshape(64, 16, 16, 3)
    order = np.random.default_rng(0).permutation(64)
    shuffled = tiles[order].reshape(8, 8, 16, 16, 3).swapaxes(1, 2).reshape(128, 128, 3)
    figure, found = axes(3, 2, height=3.8, bare=True)
    for column, (image, title) in enumerate(
        ((temple, "temple"), (shuffled, "temple, shuffled"), (flower, "flower"))
    ):
        _shown(found[column], image, title)
        found[3 + column].imshow(
            np.sqrt(np.asarray(gram_matrix(_shallow(image)))[0]), cmap="viridis"
        )
    return figure


@picture(
    "Deep dream",
    alt="A photograph and what becomes of it when four, sixteen and sixty-four steps raise the "
    "answers of random filters: patterns grow out of it.",
)
def dreaming() -> Figure:
    start = photograph(96).astype(np.float32)

    @jax.jit
    def step(x: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda image: jnp.square(_shallow(image)).sum())(x)
        return jnp.clip(x + 2.0 * gradient / jnp.abs(gradient).mean(), 0, 255)

    x, shown = jnp.asarray(start), [start]
    for number in range(1, 65):
        x = step(x)
        if number in (4, 16, 64):
            shown.append(np.asarray(x))
    images = [one.astype(np.uint8) for one in shown]
    return pictures(images, ["picture", "4 steps", "16 steps", "64 steps"], columns=4)
