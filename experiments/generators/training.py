"""A generator trained adversarially, as the decoder of an autoencoder, or as both; a function of its seed."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Generator as Draws
from torch import Tensor, nn
from torch.nn.functional import relu

from attacks.generators import GENERATORS, Generator
from experiments.generators.networks import Discriminator, Encoder, one_hot
from fl_sim.core.errors import ConfigError
from fl_sim.core.seeds import derive, derive_int
from fl_sim.core.types import Tensors
from fl_sim.data import Split
from fl_sim.data.transforms import to_unit

Kind: TypeAlias = Literal["gan", "decoder", "vaegan"]
Architecture: TypeAlias = Literal["staged", "dcgan"]

_BATCH = 64
_STEP_SIZES = {"gan": 5e-4, "decoder": 1e-3, "vaegan": 1e-3}  # Adam's, of what makes images
_JUDGING = 1e-3  # Adam's step of the discriminator
_BETAS = (0.5, 0.99)
_ADVERSARIAL = 1.0  # weight of the discriminator beside reconstruction
_AVERAGED = 0.999  # of the averaged weights is kept a step, once there were enough steps to average over


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a generator is trained.

    Args:
        kind: ``gan``: hinge loss against a discriminator (arXiv 1802.05957). ``decoder``: of a conditional VAE with a
            Gaussian likelihood whose variance is the best one for each batch (arXiv 2006.13202). ``vaegan``: both
            losses (arXiv 1512.09300), reconstruction in pixels.
        architecture: ``dcgan`` has no classes.
        latents: Entries of the latent.
        width: Channels; of the first feature for ``staged``, of the last for ``dcgan``.
        seed: Of the first weights, the order of images, all draws.
    """

    kind: Kind
    architecture: Architecture = "staged"
    latents: int = 64
    width: int = 64
    seed: int = 0

    def options(self, image_shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
        """Of the architecture."""
        side = image_shape[1]
        if side != image_shape[2]:
            raise ConfigError(f"expected square images, got (C, H, W) = {image_shape}: set --image-size")
        shared: dict[str, Any] = {"image_shape": image_shape, "latents": self.latents}
        if self.architecture == "staged":
            if self.width % 16:
                raise ConfigError(f"--width: expected a multiple of 16 for staged, got {self.width}")
            return {**shared, "classes": classes, "width": self.width}
        if side < 4 or side & (side - 1):
            raise ConfigError(f"dcgan makes sides of 4, 8, 16, ..., got {side}: set --image-size or take staged")
        return {**shared, "channels": [self.width << place for place in reversed(range(side.bit_length() - 2))]}


class Losses(NamedTuple):
    """Of one batch; ``None`` where the kind has no such term."""

    error: Tensor | None  # mean squared error of reconstructions, pixels in [0, 1]
    score: Tensor | None  # the discriminator's hinge loss; 2: it cannot tell

    def __str__(self) -> str:
        parts = {"squared error": self.error, "discriminator": self.score}
        return ", ".join(f"{name} {value.item():.4f}" for name, value in parts.items() if value is not None)


class Training:
    """Networks, their optimisers and the generator's averaged weights, between two epochs.

    Args:
        recipe: What to train.
        options: Of the architecture, as :meth:`Recipe.options` has them.
        classes: Of the images.
    """

    def __init__(self, recipe: Recipe, options: Mapping[str, Any], classes: int) -> None:
        self.recipe, self.classes, self.epochs = recipe, classes, 0
        shape, width = options["image_shape"], max(16, recipe.width // 2)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_int(recipe.seed, "generator"))
            generator = GENERATORS[recipe.architecture](**options).train()
            made: dict[str, nn.Module] = {"generator": generator}
            if recipe.kind != "gan":
                made["encoder"] = Encoder(shape, recipe.latents, width)
            judging = {} if recipe.kind == "decoder" else {"judge": Discriminator(shape, generator.classes, width)}
        self.networks = nn.ModuleDict({**made, **judging})
        self.averaged = copy.deepcopy(generator).requires_grad_(requires_grad=False)
        making = [p for network in made.values() for p in network.parameters()]
        self.optimisers = {"making": torch.optim.Adam(making, _STEP_SIZES[recipe.kind], _BETAS)}
        if judging:
            self.optimisers["judging"] = torch.optim.Adam(judging["judge"].parameters(), _JUDGING, _BETAS)
        self.steps = 0

    @property
    def generator(self) -> Generator:
        generator = self.networks["generator"]
        assert isinstance(generator, Generator)
        return generator

    @staticmethod
    def batches(images: Split) -> int:
        """How many an epoch has: whole ones only."""
        return max(1, len(images.labels) // _BATCH)

    def epoch(self, images: Split) -> Iterator[Losses]:
        """All images once, in a new order, but for what is left after whole batches; yields after each batch."""
        rng = derive(self.recipe.seed, "generator", "epoch", self.epochs)
        order = torch.randperm(len(images.labels), generator=rng)
        for chosen in torch.split(order, _BATCH)[: self.batches(images)]:
            condition = one_hot(images.labels[chosen], self.classes)
            yield self._step(to_unit(images.images[chosen]), condition, rng)
        self.epochs += 1

    def _step(self, real: Tensor, condition: Tensor, rng: Draws) -> Losses:
        made, error, loss = list[Tensor](), None, torch.zeros(())
        if "encoder" in self.networks:
            image, error, loss = self._reconstructed(real, condition, rng)
            made.append(image)
        score = None
        if "judge" in self.networks:
            made.append(self.generator(self.generator.start(len(real), condition, rng)))
            score = self._judge(real, made, condition)
            self.networks["judge"].requires_grad_(requires_grad=False)
            weight = 1.0 if error is None else _ADVERSARIAL
            loss = loss - weight * torch.stack([self._score(image, condition) for image in made]).mean()
        self._descend("making", loss)
        self._average()
        return Losses(None if error is None else error.detach(), score)

    def _reconstructed(self, real: Tensor, condition: Tensor, rng: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """The images once encoded and drawn again, their squared error, and the bound in nats a pixel."""
        mean, log_std = self.networks["encoder"](real)
        state = self.generator.start(len(real), condition, rng)
        image = self.generator({**state, "latent": mean + log_std.exp() * state["latent"]})
        error = (image - real).square().mean()
        divergence = 0.5 * (mean.square() + (2 * log_std).exp() - 1).sum() - log_std.sum()
        return image, error, 0.5 * error.log() + divergence / real.numel()

    def _judge(self, real: Tensor, made: list[Tensor], condition: Tensor) -> Tensor:
        """One step of the discriminator, and its loss before."""
        self.networks["judge"].requires_grad_(requires_grad=True)
        wrong = torch.stack([relu(1 + self._score(image.detach(), condition)).mean() for image in made]).mean()
        loss = relu(1 - self._score(real, condition)).mean() + wrong
        self._descend("judging", loss)
        return loss.detach()

    def _score(self, images: Tensor, condition: Tensor) -> Tensor:
        score: Tensor = self.networks["judge"](images, condition)
        return score

    def _descend(self, which: str, loss: Tensor) -> None:
        optimiser = self.optimisers[which]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def _average(self) -> None:
        self.steps += 1
        kept = min(_AVERAGED, self.steps / (10 + self.steps))
        for average, now in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(now.detach(), 1 - kept)
        for mine, its in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            mine.copy_(its)  # batch norm's statistics are averages already

    def tensors(self) -> Tensors:
        """All that the next epoch depends on, beside the recipe and the number of epochs."""
        held = {f"networks.{name}": t for name, t in self.networks.state_dict().items()}
        held |= {f"averaged.{name}": t for name, t in self.averaged.state_dict().items()}
        for which, optimiser in self.optimisers.items():
            for place, moments in optimiser.state_dict()["state"].items():
                held |= {f"optimisers.{which}.{place}.{name}": t for name, t in moments.items()}
        return held

    def restore(self, tensors: Tensors, *, epochs: int, steps: int) -> None:
        """As it was when :meth:`tensors` were taken."""
        self.epochs, self.steps = epochs, steps
        self.networks.load_state_dict(_under(tensors, "networks"))
        self.averaged.load_state_dict(_under(tensors, "averaged"))
        for which, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, t in _under(tensors, f"optimisers.{which}").items():
                place, _, moment = name.partition(".")
                state.setdefault(int(place), {})[moment] = t
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _under(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
