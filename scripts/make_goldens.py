"""Writes tests/goldens/*.npz: what PyTorch computes for the layers of dlcore.nn, what torchvision
does for boxes and regions, and a tiny GPT-2.

Run by hand where PyTorch (2.13), torchvision (0.28) and transformers (5.23) are installed: `python
scripts/make_goldens.py [NAME ...]`. The tests need only the files. Everything in nn.npz and
detection.npz is in dlcore's layout: images (B, H, W, C), kernels (H, W, C, K), boxes y_min, x_min,
y_max, x_max; elsewhere the parameters have PyTorch's names and layout, and sequences are (T, B, D)
in recurrent.npz, (B, T, D) in transformer.npz.
"""

import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F

GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "goldens"

# Name: (spatial sizes, channels, filters, window, stride, padding, dilation, groups).
CONVOLUTIONS = {
    "conv1d": ((9,), 3, 4, (3,), 2, 1, 1, 1),
    "conv2d": ((8, 7), 3, 5, (3, 2), 1, 0, 1, 1),
    "conv2d_strided": ((9, 8), 4, 6, (3, 3), 2, 1, 2, 2),
    "conv3d": ((4, 5, 4), 2, 3, (2, 3, 2), 1, 1, 1, 1),
}
ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "softmax": lambda x: F.softmax(x, -1),
}
# D = 3 inputs, H = 4 features.
RECURRENT = {
    "rnn": lambda: torch.nn.RNN(3, 4),
    "irnn": lambda: torch.nn.RNN(3, 4, nonlinearity="relu"),
    "lstm": lambda: torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "lstm_projection": lambda: torch.nn.LSTM(3, 4, proj_size=2),
    "gru_after": lambda: torch.nn.GRU(3, 4, bidirectional=True),
}
LENGTHS = [5, 3, 1]
TRANSFORMER = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0, "batch_first": True}


def last(x: torch.Tensor) -> torch.Tensor:
    """Channels from the second to the last axis."""
    return x.movedim(1, -1)


def gradients(y: torch.Tensor, cotangent: torch.Tensor, *inputs: torch.Tensor) -> list:
    return list(torch.autograd.grad(y, inputs, cotangent))


def recurrent() -> dict[str, torch.Tensor]:
    """Recurrent nets over sequences of several lengths."""
    torch.manual_seed(0)
    golden: dict[str, torch.Tensor] = {"lengths": torch.tensor(LENGTHS)}
    for name, make in RECURRENT.items():
        net = make()
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        x = torch.randn(max(LENGTHS), len(LENGTHS), 3, requires_grad=True)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS)
        y, carry = net(packed)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
        carries = carry if isinstance(carry, tuple) else (carry,)
        g = torch.randn_like(y)
        names, parameters = zip(*net.named_parameters(), strict=True)
        dx, *slopes = gradients(y, g, x, *parameters)
        golden |= {
            f"{name}/{key}": value for key, value in {"x": x, "y": y, "g": g, "dx": dx}.items()
        }
        golden |= dict(zip((f"{name}/carry/h", f"{name}/carry/c"), carries, strict=False))
        golden |= {f"{name}/state/{key}": p for key, p in zip(names, parameters, strict=True)}
        golden |= {f"{name}/slope/{key}": p for key, p in zip(names, slopes, strict=True)}
    return golden


def layers() -> dict[str, torch.Tensor]:
    """Convolutions, pools, batch normalisation and activations."""
    torch.manual_seed(0)
    golden: dict[str, torch.Tensor] = {}

    for name, (sizes, c, k, window, stride, padding, dilation, groups) in CONVOLUTIONS.items():
        x = torch.randn(2, c, *sizes, requires_grad=True)
        w = torch.randn(k, c // groups, *window, requires_grad=True)
        b = torch.randn(k, requires_grad=True)
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(sizes)]
        y = convolve(x, w, b, stride, padding, dilation, groups)
        g = torch.randn_like(y)
        dx, dw, db = gradients(y, g, x, w, b)
        for key, value in {"x": x, "y": y, "g": g, "dx": dx}.items():
            golden[f"{name}/{key}"] = last(value)
        for key, value in {"w": w, "dw": dw}.items():
            golden[f"{name}/{key}"] = value.movedim((0, 1), (-1, -2))
        golden[f"{name}/b"], golden[f"{name}/db"] = b, db

    # Halves of small whole numbers, so that there are many ties.
    x = (torch.randint(-3, 4, (2, 3, 9, 8)) / 2).requires_grad_()
    pools = {
        "max_2x2": F.max_pool2d(x, 2),
        "max_3x3_stride_2": F.max_pool2d(x, 3, 2),
        "max_3x3_stride_2_padded": F.max_pool2d(x, 3, 2, 1),
        "average_2x2": F.avg_pool2d(x, 2),
        "average_3x3_stride_2_padded": F.avg_pool2d(x, 3, 2, 1),
        "average_3x3_stride_2_not_counted": F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    }
    golden["pool/x"] = last(x)
    for name, y in pools.items():
        g = torch.randn_like(y)
        for key, value in {"y": y, "g": g, "dx": gradients(y, g, x)[0]}.items():
            golden[f"pool/{name}/{key}"] = last(value)

    x = (3 * torch.randn(6, 4, 5, 3) + 2).requires_grad_()
    norm = torch.nn.BatchNorm2d(4, eps=1e-5, momentum=0.1)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    y = norm(x)
    g = torch.randn_like(y)
    dx, dscale, dbias = gradients(y, g, x, norm.weight, norm.bias)
    norm.eval()
    images = {"x": x, "y": y, "g": g, "dx": dx, "y_eval": norm(x)}
    golden |= {f"norm/{key}": last(value) for key, value in images.items()}
    vectors = {"scale": norm.weight, "bias": norm.bias, "dscale": dscale, "dbias": dbias}
    vectors |= {"mean": norm.running_mean, "variance": norm.running_var}
    golden |= {f"norm/{key}": value for key, value in vectors.items()}

    x = torch.linspace(-8, 8, 40).reshape(4, 10).requires_grad_()
    golden["activation/x"] = x
    golden["activation/g"] = g = torch.randn_like(x)
    for name, function in ACTIVATIONS.items():
        y = function(x)
        golden[f"activation/{name}/y"] = y
        golden[f"activation/{name}/dx"] = gradients(y, g, x)[0]

    return golden


def transformer() -> dict[str, torch.Tensor]:
    """Encoder and decoder of two layers, with norms after and before the branches."""
    torch.manual_seed(0)
    golden: dict[str, torch.Tensor] = {"lengths": torch.tensor(LENGTHS)}
    padding = torch.arange(max(LENGTHS))[None] >= golden["lengths"][:, None]
    for name, first in {"post": False, "pre": True}.items():
        norms = [torch.nn.LayerNorm(8) if first else None for _ in range(2)]
        encoder = torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(**TRANSFORMER, norm_first=first), 2, norms[0],
            enable_nested_tensor=False,
        )  # fmt: skip
        decoder = torch.nn.TransformerDecoder(
            torch.nn.TransformerDecoderLayer(**TRANSFORMER, norm_first=first), 2, norms[1]
        )
        net = torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        source = torch.randn(3, max(LENGTHS), 8, requires_grad=True)
        target = torch.randn(3, 4, 8, requires_grad=True)
        memory = encoder(source, src_key_padding_mask=padding)
        causal = torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)
        y = decoder(target, memory, tgt_mask=causal, memory_key_padding_mask=padding)
        g = torch.randn_like(y)
        dsource, dtarget = gradients(y, g, source, target)
        arrays = {"source": source, "target": target, "memory": memory, "y": y, "g": g}
        arrays |= {"dsource": dsource, "dtarget": dtarget}
        golden |= {f"{name}/{key}": value for key, value in arrays.items()}
        golden |= {f"{name}/state/{key}": p for key, p in net.state_dict().items()}
    return golden


def gpt2() -> dict[str, torch.Tensor]:
    """The weights of a tiny GPT-2, its tokens and their logits."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=32, vocab_size=50, n_positions=16,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    net = transformers.GPT2LMHeadModel(config).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        # Numbers of few bits make a small file.
        parameter.data = parameter.data.half().float()
    tokens = torch.randint(0, 50, (3, 16))
    golden = {f"state/{key}": value for key, value in net.state_dict().items()}
    return golden | {"tokens": tokens, "logits": net(tokens).logits}


def detection() -> dict[str, torch.Tensor]:
    """Overlaps of boxes, RoIAlign and RoI pooling."""
    from torchvision import ops

    torch.manual_seed(0)
    swap = [1, 0, 3, 2]  # torchvision has x before y.
    golden: dict[str, torch.Tensor] = {}
    low = 20 * torch.rand(2, 40, 2)
    a, b = torch.cat([low, low + 1 + 15 * torch.rand(2, 40, 2)], -1)
    golden |= {"boxes/a": a[:, swap], "boxes/b": b[:, swap]}
    golden["boxes/iou"] = ops.box_iou(a, b)
    for name in ("generalized", "distance", "complete"):
        golden[f"boxes/{name}"] = getattr(ops, f"{name}_box_iou")(a, b)
        a.requires_grad_()
        loss = getattr(ops, f"{name}_box_iou_loss")(a, b, eps=0.0)
        golden[f"boxes/{name}/loss"] = loss
        golden[f"boxes/{name}/slope"] = gradients(loss, torch.ones_like(loss), a)[0][:, swap]

    x = torch.randn(2, 3, 8, 6, requires_grad=True)
    low = torch.rand(2, 9, 2) * torch.tensor([60.0, 76.0]) - 12
    boxes = torch.cat([low, low + 50 * torch.rand(2, 9, 2)], -1)
    # Halves of whole numbers, so that many bins have equal maxima.
    tied = ((2 * x).round() / 2).detach().requires_grad_()
    golden |= {"regions/boxes": boxes[..., swap]}
    pooled = {
        "align": (x, ops.roi_align(x, list(boxes), (3, 2), 1 / 8, 2, aligned=True)),
        "align_edge": (x, ops.roi_align(x, list(boxes), (2, 2), 1 / 8, 3, aligned=False)),
        "pool": (tied, ops.roi_pool(tied, list(boxes), (3, 2), 1 / 8)),
    }
    for name, (x, y) in pooled.items():
        g = torch.randn_like(y)
        golden[f"regions/{name}/x"] = last(x)
        for key, value in {"y": y, "g": g}.items():
            golden[f"regions/{name}/{key}"] = last(value).unflatten(0, (2, 9))
        golden[f"regions/{name}/dx"] = last(gradients(y, g, x)[0])
    return golden | detector_losses(swap)


def detector_losses(swap: list[int]) -> dict[str, torch.Tensor]:
    """Codes of boxes and the losses of Faster R-CNN's two networks, on every anchor and region."""
    from torchvision.models.detection import rpn
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    low = 40 * torch.rand(60, 2)
    anchors = torch.cat([low, low + 8 + 16 * torch.rand(60, 2)], -1)
    objects = anchors[[3, 20, 41]] + 2 * torch.randn(3, 4)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    codes = torch.randn(60, 4)
    golden = {
        "coder/codes": coder.encode_single(anchors.roll(1, 0), anchors)[:, swap],
        "coder/given": codes[:, swap],
        "coder/boxes": coder.decode_single(codes, anchors)[:, swap],
    }
    network = rpn.RegionProposalNetwork(
        None, None, 0.7, 0.3, 1000, 0.5, dict.fromkeys(("training", "testing"), 1),
        dict.fromkeys(("training", "testing"), 1), 0.7,
    )  # fmt: skip
    labels, matched = network.assign_targets_to_anchors([anchors], [{"boxes": objects}])
    logits = torch.randn(60, 1)
    targets = network.box_coder.encode(matched, [anchors])
    losses = network.compute_loss(logits, codes, labels, targets)
    golden |= {
        "rpn/anchors": anchors[:, swap],
        "rpn/objects": objects[:, swap],
        "rpn/logits": logits[:, 0],
        "rpn/losses": torch.stack(losses),
    }
    classes, places = torch.randn(12, 4), torch.randn(12, 4 * 4)
    labels, targets = torch.randint(0, 4, (12,)), torch.randn(12, 4)
    losses = fastrcnn_loss(classes, places, [labels], [targets])
    # Class 0 is the background there.
    order = [1, 2, 3, 0]
    return golden | {
        "regions/logits": classes[:, order],
        "regions/codes": places.reshape(12, 4, 4)[:, 1:, swap],
        "regions/labels": (labels + 3) % 4,
        "regions/targets": targets[:, swap],
        "regions/losses": torch.stack(losses),
    }


def main() -> None:
    GOLDENS.mkdir(exist_ok=True)
    makers = {
        "nn": layers, "recurrent": recurrent, "transformer": transformer, "gpt2": gpt2,
        "detection": detection,
    }  # fmt: skip
    for name in sys.argv[1:] or makers:
        golden = makers[name]()
        arrays = {key: value.detach().numpy().astype(np.float32) for key, value in golden.items()}
        np.savez_compressed(GOLDENS / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
