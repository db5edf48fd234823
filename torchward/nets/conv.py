"""Convolutional encoders for images: that of the DQN paper in Nature, and that of IMPALA."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchward.nets.spaces import SpaceError


class Nature(nn.Module):
    """Three convolutions and a linear layer of 512 (Mnih et al. 2015, "Model architecture").

    Float images ``[N, C, H, W] -> [N, 512]``; H and W at least 36."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        if min(height, width) < 36:
            raise SpaceError(
                f"the Nature encoder needs images of at least 36 x 36, got {height} x {width}; use encoder='impala'"
            )
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 8, stride=4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.features = 512
        self.linear = nn.Sequential(nn.Linear(_outputs(self.convolutions, channels, height, width), 512), nn.ReLU())

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        features: Tensor = self.linear(self.convolutions(image))
        return features


class _Residual(nn.Module):
    """Two 3 x 3 convolutions on the side of the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        inner: Tensor = self.second(torch.relu(self.first(torch.relu(x))))
        return x + inner


class Impala(nn.Module):
    """Three stages of a convolution, a pooling and two residual blocks, then a linear layer of 256 (Espeholt et al.
    2018, figure 3, right). Float images ``[N, C, H, W] -> [N, 256]``."""

    def __init__(self, channels: int, height: int, width: int, widths: tuple[int, ...] = (16, 32, 32)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for stage in widths:
            layers += [nn.Conv2d(inputs, stage, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [_Residual(stage), _Residual(stage)]
            inputs = stage
        self.convolutions = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.features = 256
        self.linear = nn.Sequential(nn.Linear(_outputs(self.convolutions, channels, height, width), 256), nn.ReLU())

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        features: Tensor = self.linear(self.convolutions(image))
        return features


def _outputs(convolutions: nn.Module, channels: int, height: int, width: int) -> int:
    with torch.no_grad():
        flat: Tensor = convolutions(torch.zeros(1, channels, height, width))
    return flat.shape[1]
