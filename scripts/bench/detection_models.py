"""Detectors as their recipes have them: a training step and the detection of pictures, ours and
PyTorch's, each as a step for `contenders`. Shapes: B pictures, S their side, N objects.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from contenders import Step

SIDE, CLASSES, OBJECTS, CANDIDATES, POINTS = 96, 10, 6, 400, 4
SHAPES = ((15.0, 9.0), (17.0, 11.0), (22.0, 14.0), (27.0, 17.0), (35.0, 23.0))


class Peer(NamedTuple):
    """A model of PyTorch on one batch.

    Attributes:
        net: its layers.
        loss: the mean loss of the batch.
        detect: finds what is in its pictures.
    """

    net: Any
    loss: Callable[[], Any]
    detect: Callable[[], Any]


def scenes(pictures: int) -> dict[str, np.ndarray]:
    """A batch of noise with one to six objects each, as `dlcore.data.detection` has it."""
    rng = np.random.default_rng(0)

    def boxes(count: int) -> np.ndarray:
        size = rng.uniform(12, 40, (pictures, count, 2))
        low = rng.uniform(0, SIDE - size)
        return np.concatenate([low, low + size], -1).astype(np.float32)

    there = np.arange(OBJECTS)[None] < rng.integers(1, OBJECTS + 1, (pictures, 1))
    points = rng.uniform(0, SIDE, (pictures, OBJECTS, POINTS, 2)).astype(np.float32)
    return {
        "image": rng.normal(size=(pictures, SIDE, SIDE, 3)).astype(np.float32),
        "boxes": boxes(OBJECTS),
        "boxes_mask": there,
        "landmarks": points,
        "landmarks_mask": there[..., None] & np.ones(POINTS, bool),
        "labels": rng.integers(CLASSES, size=(pictures, OBJECTS)).astype(np.int32),
        "candidates": boxes(CANDIDATES),
        "candidates_mask": np.ones((pictures, CANDIDATES), bool),
    }


def recipe(model: str) -> Any:
    """The configuration of a model's recipe."""
    from dlcore.launch import flags, jobs

    job = jobs.module("detection")
    arguments = [f"--recipe=digit_scenes_{model}"]
    return flags.parse(job.Config, arguments, recipes=jobs.recipes("detection"))[0]


def ours(model: str, pictures: int, *, train: bool) -> Step:
    """One step of AdamW, or the detections of a batch."""
    import jax
    import optax

    from dlcore import runtime
    from dlcore.launch import jobs
    from dlcore.train import gradient_step
    from dlcore.train.health import guard
    from dlcore.types import Aux, Mean, TrainState

    runtime.configure()
    job, batch = jobs.module("detection"), scenes(pictures)
    setting = job.Setting(CLASSES, POINTS, (SIDE, SIDE, 3), np.array(SHAPES))
    net = job.MODELS[model](recipe(model), setting)
    variables = jax.jit(net.init)(jax.random.key(0), batch["image"][:1])

    if not train:
        detect = jax.jit(functools.partial(net.apply, method="detect"))
        return lambda: jax.block_until_ready(detect(variables, batch["image"], batch))

    def loss(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[Mean, Aux]:
        parts, new = net.apply(
            {"params": params, **model_state},
            batch["image"],
            batch,
            rng,
            rngs={"dropout": rng},
            mutable=["batch_stats"],
            method="losses",
        )
        return Mean.of(sum(parts.values())), Aux(dict(new), {})

    tx = optax.adamw(1e-3)
    state = TrainState.create(variables, tx, jax.random.key(1))
    step = runtime.compile_step(guard(gradient_step(loss, tx)), runtime.layout("jit"))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        metrics["loss"].total.block_until_ready()

    return run


def theirs(model: str, pictures: int, *, train: bool) -> Step:
    """The same in PyTorch; the R-CNNs are torchvision's."""
    import torch

    torch.manual_seed(0)
    batch = {name: torch.tensor(value) for name, value in scenes(pictures).items()}
    images = batch["image"].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    peer = PEERS[model](images, batch, recipe(model))
    net = peer.net.to(memory_format=torch.channels_last)
    if not train:
        net.eval()

        def look() -> None:
            with torch.inference_mode():
                peer.detect()

        return look
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        value = peer.loss()
        value.backward()
        optimizer.step()
        value.item()

    return run


def _body(stride: int = 8) -> tuple[Any, Any]:
    """The stages before that of a stride, and that one."""
    from torch import nn

    from dlcore.models.cnn.darknet import SMALL_DARKNET

    stages, before = [], 3
    for number, features in enumerate(SMALL_DARKNET[: int(math.log2(stride))]):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
        for layer, filters in enumerate(features):
            layers.append(_unit(before, filters, 1 if layer % 2 else 3, 1 if number else 2))
            before = filters
        stages.append(nn.Sequential(*layers))
    return nn.Sequential(*stages[:-1]), stages[-1]


def _unit(before: int, filters: int, window: int, stride: int = 1) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(before, filters, window, stride, window // 2, bias=False),
        nn.BatchNorm2d(filters),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _largest(batch: dict[str, Any]) -> Any:
    """The number of the largest object of each picture."""
    import torch

    sides = batch["boxes"][..., 2:] - batch["boxes"][..., :2]
    return torch.where(batch["boxes_mask"], sides.prod(-1), -1).argmax(1)


def _with_passthrough(config: Any, outputs: int) -> tuple[Any, Callable[[Any], Any]]:
    """The layers of a body with passthrough and head, and what gives the head's map."""
    import torch
    from torch import nn
    from torch.nn import functional

    fine, coarse = _body()
    layers = nn.ModuleDict(
        {
            "fine": fine,
            "coarse": coarse,
            "passthrough": _unit(48, config.passthrough, 1),
            "head": _unit(96 + 4 * config.passthrough, config.hidden, 3),
            "output": nn.Conv2d(config.hidden, outputs, 1),
        }
    )

    def head(images: Any) -> Any:
        near = layers["fine"](images)
        passed = functional.pixel_unshuffle(layers["passthrough"](near), 2)
        return layers["head"](torch.cat([passed, layers["coarse"](near)], 1))

    return layers, head


def _localizer(images: Any, batch: dict[str, Any], config: Any) -> Peer:
    import torch
    from torch import nn
    from torch.nn import functional
    from torchvision import ops

    layers, head = _with_passthrough(config, 1)
    layers["said"] = nn.Linear(config.hidden, 5 + CLASSES)
    at = (torch.arange(12) + 0.5) / 12
    places = torch.stack(torch.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    largest = _largest(batch)
    rows = torch.arange(len(images))
    box, label = batch["boxes"][rows, largest], batch["labels"][rows, largest].long()
    cell = ((box[:, :2] + box[:, 2:]) / 16).long().clamp(0, 11)

    def outputs() -> tuple[Any, Any, Any]:
        x = head(images)
        looks = layers["output"](x).flatten(1)
        where = looks.softmax(1)
        said = layers["said"](torch.einsum("br,bfr->bf", where, x.flatten(2)))
        centre = where @ places + said[:, 1:3] / 12
        half = torch.sigmoid(said[:, 3:5]) / 2
        return looks, said, SIDE * torch.cat([centre - half, centre + half], 1)

    def loss() -> Any:
        looks, said, found = outputs()
        total = functional.cross_entropy(looks, cell[:, 0] * 12 + cell[:, 1])
        total = total + functional.cross_entropy(said[:, 5:], label)
        total = total + functional.softplus(-said[:, 0]).mean()
        return total + 5 * ops.complete_box_iou_loss(found, box, reduction="mean")

    def detect() -> Any:
        _, said, found = outputs()
        scores = torch.sigmoid(said[:, :1]) * said[:, 5:].softmax(1)
        return found.clamp(0, SIDE), scores.max(1)

    return Peer(layers, loss, detect)


def _landmarks(images: Any, batch: dict[str, Any], config: Any) -> Peer:
    import torch
    from torch import nn
    from torch.nn import functional

    fine, coarse = _body()
    layers = nn.ModuleDict(
        {
            "fine": fine,
            "coarse": coarse,
            "before": _unit(96, config.hidden, 3),
            "passthrough": _unit(48, config.passthrough, 1),
            "head": _unit(config.passthrough + config.hidden, config.hidden, 3),
            "output": nn.Conv2d(config.hidden, POINTS, 1),
        }
    )
    rows = torch.arange(len(images))
    points = batch["landmarks"][rows, _largest(batch)] * (24 / SIDE)
    away = points[..., None] - (torch.arange(24) + 0.5)
    down, across = (away[:, :, axis] ** 2 / 2 for axis in (0, 1))
    wanted = torch.softmax(-(down[..., :, None] + across[..., None, :]).flatten(2), -1)

    def outputs() -> Any:
        near = layers["fine"](images)
        x = layers["before"](layers["coarse"](near))
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = layers["head"](torch.cat([layers["passthrough"](near), x], 1))
        return layers["output"](x).flatten(2)

    def loss() -> Any:
        return -(wanted * torch.log_softmax(outputs(), -1)).sum(-1).mean()

    def detect() -> None:
        logs = torch.log(torch.softmax(outputs(), -1) + 1e-6).unflatten(2, (24, 24))
        best = logs.flatten(2).argmax(-1)
        padded = functional.pad(logs, (1, 1, 1, 1), mode="replicate").flatten(2)
        here = (best // 24 + 1) * 26 + best % 24 + 1
        for step, place in ((26, best // 24), (1, best % 24)):
            before, now, after = (
                padded.gather(2, (here + move)[..., None])[..., 0] for move in (-step, 0, step)
            )
            bend = (before - 2 * now + after).clamp(max=-1e-6)
            _ = place + 0.5 + (0.5 * (before - after) / bend).clamp(-0.5, 0.5)

    return Peer(layers, loss, detect)


def _yolo_v1(images: Any, batch: dict[str, Any], config: Any) -> Peer:
    import torch
    from torch import nn
    from torchvision import ops

    grid, k = config.grid, config.predictors
    each, width = 5 * k + CLASSES, SIDE / config.grid
    body = nn.Sequential(*_body(config.stride), nn.Flatten())
    with torch.no_grad():
        features = body(images[:1]).shape[1]
    net = nn.Sequential(
        *body,
        nn.Linear(features, config.hidden),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, grid**2 * each),
    )
    cells = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"), -1)
    cells = cells.reshape(-1, 1, 2)
    rows, numbers = batch["boxes_mask"].nonzero(as_tuple=True)
    objects, labels = batch["boxes"][rows, numbers], batch["labels"][rows, numbers].long()
    middle = (objects[:, :2] + objects[:, 2:]) / 2 / width
    cell = middle.long().clamp(0, grid - 1)
    place = cell[:, 0] * grid + cell[:, 1]
    wanted = torch.cat([middle - cell, ((objects[:, 2:] - objects[:, :2]) / SIDE).sqrt()], 1)
    one_hot = torch.eye(CLASSES)[labels]

    def outputs() -> tuple[Any, Any, Any]:
        x = net(images).reshape(len(images), grid**2, each)
        codes = x[..., : 5 * k].reshape(len(images), grid**2, k, 5)
        centre, half = (codes[..., 1:3] + cells) * width, codes[..., 3:5] ** 2 * SIDE / 2
        return codes, x[..., 5 * k :], torch.cat([centre - half, centre + half], -1)

    def loss() -> Any:
        codes, classes, boxes = outputs()
        with torch.no_grad():
            overlaps = torch.stack(
                [ops.box_iou(boxes[rows, place, n], objects).diagonal() for n in range(k)], 1
            )
            iou, best = overlaps.max(1)
            target, taken = torch.zeros(codes.shape[:3]), torch.zeros(codes.shape[:3])
            target[rows, place, best], taken[rows, place, best] = iou, 1.0
        error = (codes[..., 0] - target) ** 2
        total = 5 * ((codes[rows, place, best, 1:] - wanted) ** 2).sum()
        total = total + (error * (0.5 + 0.5 * taken)).sum()
        return (total + ((classes[rows, place] - one_hot) ** 2).sum()) / len(images)

    def detect() -> None:
        codes, classes, boxes = outputs()
        scores = codes[..., :1].clamp(0, 1) * classes[..., None, :].clamp(0, 1)
        _suppressed(boxes.reshape(len(images), -1, 4), scores)

    return Peer(net, loss, detect)


def _yolo_v2(images: Any, batch: dict[str, Any], config: Any) -> Peer:
    import torch
    from torch.nn import functional
    from torchvision import ops

    count, k = len(images), len(SHAPES)
    layers, head = _with_passthrough(config, k * (5 + CLASSES))
    shapes = torch.tensor(SHAPES)
    grid = torch.stack(torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij"), -1)

    def outputs() -> tuple[Any, Any]:
        x = layers["output"](head(images)).permute(0, 2, 3, 1)
        x = x.reshape(count, 12, 12, k, 5 + CLASSES)
        middle = (torch.sigmoid(x[..., 1:3]) + grid[:, :, None]) * 8
        half = torch.exp(x[..., 3:5].clamp(max=8)) * shapes / 2
        boxes = torch.cat([middle - half, middle + half], -1)
        return x.reshape(count, -1, 5 + CLASSES), boxes.reshape(count, -1, 4)

    objects, there, labels = batch["boxes"], batch["boxes_mask"], batch["labels"].long()

    def overlaps(boxes: Any) -> Any:
        """IoU of boxes (B, R, 4) with the objects: (B, R, N)."""
        low = torch.maximum(boxes[:, :, None, :2], objects[:, None, :, :2])
        high = torch.minimum(boxes[:, :, None, 2:], objects[:, None, :, 2:])
        shared = (high - low).clamp(min=0).prod(-1)
        areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, objects)]
        return shared / (areas[0][:, :, None] + areas[1][:, None] - shared).clamp(min=1e-9)

    def loss() -> Any:
        x, boxes = outputs()
        sides = objects[..., 2:] - objects[..., :2]
        shared = torch.minimum(sides[:, :, None], shapes).prod(-1)
        union = sides.prod(-1)[:, :, None] + shapes.prod(-1) - shared
        anchor = (shared / union).argmax(-1)
        cell = ((objects[..., :2] + objects[..., 2:]) / 16).long().clamp(0, 11)
        place = (cell[..., 0] * 12 + cell[..., 1]) * k + anchor
        rows, numbers = there.nonzero(as_tuple=True)
        at = place[rows, numbers]
        own, said, wanted = boxes[rows, at], x[rows, at], objects[rows, numbers]
        with torch.no_grad():
            near = ((overlaps(boxes) > 0.6) & there[:, None]).any(-1)
            iou = ops.box_iou(own, wanted).diagonal()
            target, taken = torch.zeros(x.shape[:2]), torch.zeros(x.shape[:2], dtype=torch.bool)
            target[rows, at], taken[rows, at] = iou, True
        scores = functional.binary_cross_entropy_with_logits(x[..., 0], target, reduction="none")
        total = ops.complete_box_iou_loss(own, wanted, reduction="sum")
        total = total + config.object_weight * torch.where(taken, scores, 0).sum()
        total = total + torch.where(taken | near, 0, scores).sum()
        classes = functional.cross_entropy(said[:, 5:], labels[rows, numbers], reduction="sum")
        return (total + classes) / count

    def detect() -> None:
        x, boxes = outputs()
        _suppressed(boxes, torch.sigmoid(x[..., :1]) * torch.softmax(x[..., 5:], -1))

    return Peer(layers, loss, detect)


def _suppressed(boxes: Any, scores: Any) -> None:
    """The detections of boxes (B, R, 4) with scores (B, ..., CLASSES)."""
    from torchvision import ops

    boxes = boxes.clamp(0, SIDE)
    for own, score in zip(boxes, scores.flatten(1), strict=True):
        best, order = score.topk(300)
        chosen = own[order // CLASSES]
        kept = ops.batched_nms(chosen, best, order % CLASSES, 0.5)[:100]
        _ = chosen[kept], best[kept]


def _targets(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of each picture as torchvision takes them."""
    rows = zip(batch["boxes"], batch["boxes_mask"], batch["labels"], strict=True)
    return [
        {"boxes": boxes[mask][:, [1, 0, 3, 2]], "labels": labels[mask].long() + 1}
        for boxes, mask, labels in rows
    ]


def _region_head(config: Any) -> dict[str, Any]:
    """The parts of torchvision's head on a map of stride 4, which has 48 channels."""
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    return {
        "box_roi_pool": MultiScaleRoIAlign(["0"], 7, 2),
        "box_head": TwoMLPHead(48 * 49, config.hidden),
        "box_predictor": FastRCNNPredictor(config.hidden, CLASSES + 1),
    }


def _fast_rcnn(images: Any, batch: dict[str, Any], config: Any) -> Peer:
    from torch import nn
    from torchvision.models.detection.roi_heads import RoIHeads

    body = _body()[0]
    head = RoIHeads(
        **_region_head(config),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.regions,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.001,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    net = nn.ModuleList([body, head])
    candidates = list(batch["candidates"][..., [1, 0, 3, 2]])
    sizes, targets = [(SIDE, SIDE)] * len(images), _targets(batch)

    def loss() -> Any:
        return sum(head({"0": body(images)}, candidates, sizes, targets)[1].values())

    return Peer(net, loss, lambda: head({"0": body(images)}, candidates, sizes))


def _faster_rcnn(images: Any, batch: dict[str, Any], config: Any) -> Peer:
    from torchvision.models import detection
    from torchvision.models.detection.rpn import AnchorGenerator, RPNHead

    backbone = _body()[0]
    backbone.out_channels = 48
    # One size of each shape, with the ratio of its sides.
    sizes = tuple(round((h * w) ** 0.5) for h, w in SHAPES)
    net = detection.FasterRCNN(
        backbone,
        **_region_head(config),
        min_size=SIDE,
        max_size=SIDE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator((sizes,), ((1.6,),)),
        rpn_head=RPNHead(48, len(SHAPES)),
        rpn_pre_nms_top_n_train=600,
        rpn_pre_nms_top_n_test=600,
        rpn_post_nms_top_n_train=2 * config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        rpn_batch_size_per_image=config.anchor_sample,
        box_batch_size_per_image=config.regions,
        box_score_thresh=0.001,
    )
    pictures, targets = list(images), _targets(batch)
    return Peer(net, lambda: sum(net(pictures, targets).values()), lambda: net(pictures))


PEERS = {
    "localizer": _localizer,
    "landmarks": _landmarks,
    "yolo_v1": _yolo_v1,
    "yolo_v2": _yolo_v2,
    "fast_rcnn": _fast_rcnn,
    "faster_rcnn": _faster_rcnn,
}
