"""The networks of other projects as small torch modules, after their published lists of layers."""

import functools

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

VGG = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
MOBILENET = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def convolution(inputs, outputs, size, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class Vgg(nn.Module):
    """Of dense layers of these widths behind maps of so many pixels, with ReLU and dropout; or of a single one."""

    def __init__(self, depth, classes, *, widths=(), pixels=1, batch_norm=True, pooled=False):
        super().__init__()
        layers, inputs = [], 3
        for word in VGG[depth].split():
            if word == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(inputs, int(word), 3, padding=1)] + [nn.BatchNorm2d(int(word))] * batch_norm
            layers.append(nn.ReLU())
            inputs = int(word)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7) if pooled else nn.Identity()
        inputs, dense = inputs * pixels**2, []
        for width in widths:
            dense += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout()]
            inputs = width
        last = nn.Linear(inputs, classes)
        self.classifier = nn.Sequential(*dense, last) if widths else last

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


class ResidualBlock(nn.Module):
    """Shortcuts: convolutions under a name, or zeros around the channels."""

    def __init__(self, inputs, outputs, stride, name):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.name, self.stride, self.zeros = name, stride, outputs - inputs
        if name and stride > 1:
            layers = [convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)]
            setattr(self, name, nn.Sequential(*layers))

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.name and self.stride > 1:
            x = getattr(self, self.name)(x)
        elif self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.zeros // 2, self.zeros // 2))
        return functional.relu(x + y)


class Resnet(nn.Module):
    def __init__(self, depth, widths, classes, *, shortcut, dense):
        super().__init__()
        self.conv1, self.bn1 = convolution(3, widths[0], 3), nn.BatchNorm2d(widths[0])
        self.stages, self.dense, inputs = len(widths), dense, widths[0]
        for stage, width in enumerate(widths, start=1):
            blocks = []
            for index in range(depth):
                blocks.append(ResidualBlock(inputs, width, 2 if stage > 1 and index == 0 else 1, shortcut))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        setattr(self, dense, nn.Linear(inputs, classes))

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return getattr(self, self.dense)(x.mean((2, 3)))


class NumberedBlock(nn.Module):
    """Three convolutions, and one more where channels change at stride 1."""

    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        hidden, self.stride = expansion * inputs, stride
        self.conv1, self.bn1 = convolution(inputs, hidden, 1), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = convolution(hidden, hidden, 3, stride, hidden), nn.BatchNorm2d(hidden)
        self.conv3, self.bn3 = convolution(hidden, outputs, 1), nn.BatchNorm2d(outputs)
        layers = [convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*(layers if stride == 1 and inputs != outputs else []))

    def forward(self, x):
        y = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.stride == 1 else y


class NumberedMobilenet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn1 = convolution(3, 32, 3), nn.BatchNorm2d(32)
        blocks, inputs = [], 32
        for expansion, width, count, stride in MOBILENET:
            for index in range(count):
                blocks.append(NumberedBlock(inputs, width, expansion, 1 if index else stride))
                inputs = width
        self.layers = nn.Sequential(*blocks)
        self.conv2, self.bn2 = convolution(320, 1280, 1), nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x):
        x = self.layers(functional.relu(self.bn1(self.conv1(x))))
        return self.linear(functional.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def activated(inputs, outputs, size, stride=1, groups=1):
    return nn.Sequential(convolution(inputs, outputs, size, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6())


class SequentialBlock(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        hidden, self.adds = expansion * inputs, stride == 1 and inputs == outputs
        layers = [activated(inputs, hidden, 1)] if expansion > 1 else []
        layers += [activated(hidden, hidden, 3, stride, hidden), convolution(hidden, outputs, 1)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class SequentialMobilenet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        layers, inputs = [activated(3, 32, 3)], 32
        for expansion, width, count, stride in MOBILENET:
            for index in range(count):
                layers.append(SequentialBlock(inputs, width, expansion, 1 if index else stride))
                inputs = width
        self.features = nn.Sequential(*layers, activated(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


residual = functools.partial(Resnet, 3, (16, 32, 64), 10)
NETWORKS = {
    "vgg11 kuangliu": ("vgg11", lambda: Vgg(11, 10)),
    "vgg11_bn chenyaofo": ("vgg11_bn_cifar", lambda: Vgg(11, 7, widths=(512, 512))),
    "resnet20 chenyaofo": ("resnet20_projection", lambda: residual(shortcut="downsample", dense="fc")),
    "resnet20 akamaster": ("resnet20", lambda: residual(shortcut=None, dense="linear")),
    "resnet20 akamaster B": ("resnet20_projection", lambda: residual(shortcut="shortcut", dense="linear")),
    "resnet18 kuangliu": (
        "resnet18",
        lambda: Resnet(2, (64, 128, 256, 512), 10, shortcut="shortcut", dense="linear"),
    ),
    "mobilenetv2 kuangliu": ("mobilenetv2", lambda: NumberedMobilenet(10)),
    "mobilenetv2 chenyaofo": ("mobilenetv2_x1_0", lambda: SequentialMobilenet(100)),
}
"""By project: our name, and what makes the module."""


def drawn(module, seed=0):
    """The module in evaluation mode, with weights and statistics at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, entry in module.state_dict().items():
            if entry.ndim > 1:
                deviation = (2 / entry[0].numel()) ** 0.5
                entry.copy_(deviation * torch.randn(entry.shape, generator=generator))
            elif key.endswith("running_var") or key.endswith("weight"):
                entry.copy_(0.5 + torch.rand(entry.shape, generator=generator))
            elif entry.is_floating_point():
                entry.copy_(0.1 * torch.randn(entry.shape, generator=generator))
    return module.eval()
