"""Model, data and training, as in Flower's quickstart (here one random image a client, and one step)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    """Model from PyTorch's 60-minute blitz."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = functional.relu(self.fc1(x.flatten(1)))
        out: Tensor = self.fc3(functional.relu(self.fc2(x)))
        return out


def load_data(partition_id: int) -> tuple[Tensor, Tensor]:
    """One image in [0, 1], normalised by mean 0.5 and std 0.5, and its label."""
    generator = torch.Generator().manual_seed(partition_id)
    image = functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), 32, mode="bilinear")
    return (image - 0.5) / 0.5, torch.tensor([partition_id])


def train(net: nn.Module, images: Tensor, labels: Tensor, lr: float) -> float:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    loss = functional.cross_entropy(net(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()
