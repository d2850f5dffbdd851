"""The two untrained networks of the Fashion-MNIST studies."""

from __future__ import annotations

from abcdeep_core import nn


def dense_network(seed: int, width: int = 512) -> nn.Sequential:
    """Return an untrained network of four fully connected layers, the first of 784 terms."""
    layers: list[nn.Layer] = [nn.Flatten()]
    for inputs in (784, width, width):
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10), seed=seed)


def convolutional_network(seed: int, width: int = 64) -> nn.Sequential:
    """Return an untrained network of three convolutions, the last of 9 * width terms."""
    layers: list[nn.Layer] = []
    for inputs, outputs in ((1, width // 4), (width // 4, width), (width, width)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 10), seed=seed)


NETWORKS = {"mlp": (dense_network, 512), "cnn": (convolutional_network, 64)}
