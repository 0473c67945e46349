"""Detectors with the body `darknet_small`: a training step and the detection of pictures, ours and
PyTorch's, each as a step for `contenders`. Shapes: B pictures, S their side, N objects.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from contenders import Step

SIDE, CLASSES, OBJECTS = 96, 10, 6
SHAPES = ((15.0, 9.0), (17.0, 11.0), (22.0, 14.0), (27.0, 17.0), (35.0, 23.0))
# Those of the job's defaults.
HIDDEN, PASSTHROUGH, NEAR, REGIONS, PROPOSALS, ANCHORS = 128, 16, 0.6, 32, 100, 128


def scenes(pictures: int) -> dict[str, np.ndarray]:
    """A batch of noise with one to six objects each, as `dlcore.data.detection` has it."""
    rng = np.random.default_rng(0)
    size = rng.uniform(12, 40, (pictures, OBJECTS, 2))
    low = rng.uniform(0, SIDE - size)
    return {
        "image": rng.normal(size=(pictures, SIDE, SIDE, 3)).astype(np.float32),
        "boxes": np.concatenate([low, low + size], -1).astype(np.float32),
        "boxes_mask": np.arange(OBJECTS)[None] < rng.integers(1, OBJECTS + 1, (pictures, 1)),
        "labels": rng.integers(CLASSES, size=(pictures, OBJECTS)).astype(np.int32),
    }


def our_model(model: str) -> Any:
    """The system of the job."""
    from dlcore.models.detection import faster_rcnn, yolo
    from dlcore.models.detection.body import make_body
    from dlcore.models.detection.fast_rcnn import RegionHead, Sampling

    shape = (SIDE, SIDE, 3)
    if model == "yolo_v2":
        body, _ = make_body("darknet_small", (4, 8), shape)
        return yolo.YOLOv2(
            body, CLASSES, SHAPES, 8, features=HIDDEN, passthrough=PASSTHROUGH, box_loss="ciou"
        )
    body, _ = make_body("darknet_small", (8,), shape)
    return faster_rcnn.FasterRCNN(
        body,
        RegionHead(CLASSES, (8,), width=HIDDEN),
        (SHAPES,),
        rules=faster_rcnn.ProposalRules(sample=ANCHORS, train=2 * PROPOSALS, detect=PROPOSALS),
        sampling=Sampling(count=REGIONS, background=(0.0, 0.5)),
    )


def ours(model: str, pictures: int, *, train: bool) -> Step:
    """One step of AdamW, or the detections of a batch."""
    import jax
    import optax

    from dlcore import runtime
    from dlcore.train import gradient_step
    from dlcore.train.health import guard
    from dlcore.types import Aux, Mean, TrainState

    runtime.configure()
    net, batch = our_model(model), scenes(pictures)
    variables = jax.jit(net.init)(jax.random.key(0), batch["image"][:1])

    if not train:
        detect = jax.jit(functools.partial(net.apply, method="detect"))
        return lambda: jax.block_until_ready(detect(variables, batch["image"], {}))

    def loss(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[Mean, Aux]:
        parts, new = net.apply(
            {"params": params, **model_state},
            batch["image"],
            batch,
            rng,
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
    """The same in PyTorch; Faster R-CNN is torchvision's."""
    import torch

    torch.manual_seed(0)
    batch = {name: torch.tensor(value) for name, value in scenes(pictures).items()}
    images = batch["image"].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    net, loss, detect = {"yolo_v2": _their_yolo, "faster_rcnn": _their_faster_rcnn}[model](
        images, batch
    )
    net = net.to(memory_format=torch.channels_last)
    if not train:
        net.eval()

        def look() -> None:
            with torch.inference_mode():
                detect()

        return look
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        value.item()

    return run


def _their_body() -> tuple[Any, Any]:
    """The stages of strides 2 and 4, and that of 8."""
    from torch import nn

    from dlcore.models.cnn.darknet import SMALL_DARKNET

    stages, before = [], 3
    for number, features in enumerate(SMALL_DARKNET[:3]):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
        for layer, filters in enumerate(features):
            layers.append(_their_unit(before, filters, 1 if layer % 2 else 3, 1 if number else 2))
            before = filters
        stages.append(nn.Sequential(*layers))
    return nn.Sequential(*stages[:2]), stages[2]


def _their_unit(before: int, filters: int, window: int, stride: int = 1) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(before, filters, window, stride, window // 2, bias=False),
        nn.BatchNorm2d(filters),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _their_yolo(images: Any, batch: dict[str, Any]) -> tuple[Any, Callable, Callable]:
    import torch
    from torch import nn
    from torch.nn import functional
    from torchvision import ops

    fine, coarse = _their_body()
    layers = nn.ModuleDict(
        {
            "fine": fine,
            "coarse": coarse,
            "passthrough": _their_unit(48, PASSTHROUGH, 1),
            "head": _their_unit(96 + 4 * PASSTHROUGH, HIDDEN, 3),
            "output": nn.Conv2d(HIDDEN, len(SHAPES) * (5 + CLASSES), 1),
        }
    )
    shapes = torch.tensor(SHAPES)
    grid = torch.stack(torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij"), -1)
    count, k = len(images), len(SHAPES)

    def outputs() -> tuple[Any, Any]:
        near = layers["fine"](images)
        passed = functional.pixel_unshuffle(layers["passthrough"](near), 2)
        x = torch.cat([passed, layers["coarse"](near)], 1)
        x = layers["output"](layers["head"](x)).permute(0, 2, 3, 1)
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
            near = (overlaps(boxes) > NEAR) & there[:, None]
            iou = ops.box_iou(own, wanted).diagonal()
        target, taken = torch.zeros(x.shape[:2]), torch.zeros(x.shape[:2], dtype=torch.bool)
        target[rows, at], taken[rows, at] = iou, True
        scores = functional.binary_cross_entropy_with_logits(x[..., 0], target, reduction="none")
        background = torch.where(taken | near.any(-1), 0, scores)
        total = ops.complete_box_iou_loss(own, wanted, reduction="sum")
        total = total + 5 * torch.where(taken, scores, 0).sum() + background.sum()
        total = total + functional.cross_entropy(
            said[:, 5:], labels[rows, numbers], reduction="sum"
        )
        return total / count

    def detect() -> None:
        x, boxes = outputs()
        scores = torch.sigmoid(x[..., :1]) * torch.softmax(x[..., 5:], -1)
        boxes = boxes.clamp(0, SIDE)
        for picture in range(count):
            best, order = scores[picture].flatten().topk(300)
            chosen = boxes[picture, order // CLASSES]
            kept = ops.batched_nms(chosen, best, order % CLASSES, 0.5)[:100]
            _ = chosen[kept], best[kept]

    return layers, loss, detect


def _their_faster_rcnn(images: Any, batch: dict[str, Any]) -> tuple[Any, Callable, Callable]:
    from torch import nn
    from torchvision.models import detection
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    backbone = nn.Sequential(*_their_body())
    backbone.out_channels = 96
    # One size of each shape, with the ratio of its sides.
    sizes = tuple(round((h * w) ** 0.5) for h, w in SHAPES)
    generator = AnchorGenerator((sizes,), ((1.6,),))
    net = detection.FasterRCNN(
        backbone,
        min_size=SIDE,
        max_size=SIDE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=generator,
        rpn_head=RPNHead(96, len(SHAPES)),
        rpn_pre_nms_top_n_train=600,
        rpn_pre_nms_top_n_test=600,
        rpn_post_nms_top_n_train=2 * PROPOSALS,
        rpn_post_nms_top_n_test=PROPOSALS,
        rpn_batch_size_per_image=ANCHORS,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_head=TwoMLPHead(96 * 49, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, CLASSES + 1),
        box_batch_size_per_image=REGIONS,
        box_score_thresh=0.001,
    )
    pictures = list(images)
    targets = [
        {"boxes": boxes[mask][:, [1, 0, 3, 2]], "labels": labels[mask].long() + 1}
        for boxes, mask, labels in zip(
            batch["boxes"], batch["boxes_mask"], batch["labels"], strict=True
        )
    ]

    def loss() -> Any:
        return sum(net(pictures, targets).values())

    return net, loss, lambda: net(pictures)
