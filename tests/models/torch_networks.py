"""The networks that torchvision has, in PyTorch and with its names of modules, at any width.

Only the names are torchvision's; what is between them follows the papers. `features` and so on are
numbers of channels.
"""

import collections
import functools

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


class Classifier(nn.Module):
    """Features, their map flattened channel by channel, and dense layers."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def alexnet(features, inputs, hidden, classes):
    a, b, c, d, e = features
    relu = nn.ReLU
    return Classifier(
        nn.Sequential(
            nn.Conv2d(3, a, 11, 4, 2),
            relu(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(a, b, 5, 1, 2),
            relu(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(b, c, 3, 1, 1),
            relu(),
            nn.Conv2d(c, d, 3, 1, 1),
            relu(),
            nn.Conv2d(d, e, 3, 1, 1),
            relu(),
            nn.MaxPool2d(3, 2),
        ),
        nn.Sequential(
            nn.Dropout(),
            nn.Linear(inputs, hidden),
            relu(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            relu(),
            nn.Linear(hidden, classes),
        ),
    )


class Fire(nn.Module):
    def __init__(self, channels, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


class SqueezeNet(nn.Module):
    """`fires`: channels of squeeze and expand; `pools`: the fires that a pool follows."""

    def __init__(self, stem, window, fires, pools, classes):
        super().__init__()
        pool = functools.partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        layers, channels = [nn.Conv2d(3, stem, window, 2), nn.ReLU(), pool()], stem
        for number, (squeeze, expand) in enumerate(fires, 2):
            layers.append(Fire(channels, squeeze, expand))
            channels = 2 * expand
            if number in pools:
                layers.append(pool())
        self.features = nn.Sequential(*layers)
        average = nn.AdaptiveAvgPool2d(1)
        last = nn.Conv2d(channels, classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(), last, nn.ReLU(), average)

    def forward(self, x):
        return self.classifier(self.features(x)).flatten(1)


def vgg(stages, batch_norm, inputs, hidden, classes):
    """`stages`: the channels of each convolution, stage by stage."""
    layers, channels = [], 3
    for stage in stages:
        for features in stage:
            layers.append(nn.Conv2d(channels, features, 3, padding=1))
            layers += [nn.BatchNorm2d(features)] if batch_norm else []
            layers.append(nn.ReLU())
            channels = features
        layers.append(nn.MaxPool2d(2, 2))
    dense = [
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(hidden, classes),
    ]
    return Classifier(nn.Sequential(*layers), nn.Sequential(*dense))


class BasicConv2d(nn.Module):
    def __init__(self, inputs, features, size, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(features, eps=0.001)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Inception(nn.Module):
    def __init__(self, inputs, numbers):
        super().__init__()
        one, reduce3, three, reduce5, five, project = numbers
        self.branch1 = BasicConv2d(inputs, one, 1)
        self.branch2 = nn.Sequential(
            BasicConv2d(inputs, reduce3, 1), BasicConv2d(reduce3, three, 3)
        )
        self.branch3 = nn.Sequential(BasicConv2d(inputs, reduce5, 1), BasicConv2d(reduce5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), BasicConv2d(inputs, project, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    def __init__(self, inputs, features, hidden, classes):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = BasicConv2d(inputs, features, 1)
        self.fc1 = nn.Linear(16 * features, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.fc2(self.fc1(self.conv(self.pool(x)).flatten(1)).relu())


class GoogLeNet(nn.Module):
    """`modules`: the six numbers of each inception module by its name, such as "3a"."""

    def __init__(self, stem, modules, head, classes):
        super().__init__()
        self.conv1 = BasicConv2d(3, stem[0], 7, 2)
        self.conv2 = BasicConv2d(stem[0], stem[0], 1)
        self.conv3 = BasicConv2d(stem[0], stem[1], 3)
        channels, self.names = stem[1], list(modules)
        for name, numbers in modules.items():
            self.add_module(f"inception{name}", Inception(channels, numbers))
            channels = numbers[0] + numbers[2] + numbers[4] + numbers[5]
            if head and name in ("4a", "4d"):
                self.add_module(f"aux{1 + (name == '4d')}", InceptionAux(channels, *head, classes))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        x = pool(self.conv3(self.conv2(pool(self.conv1(x)))))
        for name in self.names:
            x = getattr(self, f"inception{name}")(x)
            x = {"3b": pool, "4e": nn.MaxPool2d(2, 2, ceil_mode=True)}.get(name, nn.Identity())(x)
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """`units`: (features, size) of each convolution."""

    def __init__(self, inputs, units, stride):
        super().__init__()
        channels, self.count = inputs, len(units)
        for i, (features, size) in enumerate(units, start=1):
            # The first 3x3 convolution strides.
            step = stride if size == 3 and (i == 1 or units[i - 2][1] == 1) else 1
            conv = nn.Conv2d(channels, features, size, step, size // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(features))
            channels = features
        self.downsample = None
        if stride != 1 or inputs != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.count else y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """`stages`: (features, blocks) of each stage."""

    def __init__(self, stages, bottleneck, classes):
        super().__init__()
        channels = stages[0][0]
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, (features, blocks) in enumerate(stages, start=1):
            units = [(features, 1), (features, 3), (4 * features, 1)] if bottleneck else None
            units = units or [(features, 3), (features, 3)]
            layers = []
            for i in range(blocks):
                layers.append(Residual(channels, units, 2 if number > 1 and i == 0 else 1))
                channels = units[-1][0]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        new = self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())
        return torch.cat([x, new], 1)


class Flat(nn.Module):
    def forward(self, x):
        return x.relu().mean((2, 3), keepdim=True)


def densenet(growth, blocks, classes):
    channels = 2 * growth
    layers = [
        ("conv0", nn.Conv2d(3, channels, 7, 2, 3, bias=False)),
        ("norm0", nn.BatchNorm2d(channels)),
        ("relu0", nn.ReLU()),
        ("pool0", nn.MaxPool2d(3, 2, 1)),
    ]
    for number, count in enumerate(blocks, start=1):
        if number > 1:
            half = [
                ("norm", nn.BatchNorm2d(channels)),
                ("relu", nn.ReLU()),
                ("conv", nn.Conv2d(channels, channels // 2, 1, bias=False)),
                ("pool", nn.AvgPool2d(2, 2)),
            ]
            transition = nn.Sequential(collections.OrderedDict(half))
            layers.append((f"transition{number - 1}", transition))
            channels //= 2
        block = collections.OrderedDict()
        for i in range(count):
            block[f"denselayer{i + 1}"] = DenseLayer(channels, growth)
            channels += growth
        layers.append((f"denseblock{number}", nn.Sequential(block)))
    layers += [("norm5", nn.BatchNorm2d(channels)), ("flat", Flat())]
    features = nn.Sequential(collections.OrderedDict(layers))
    return Classifier(features, nn.Linear(channels, classes))
