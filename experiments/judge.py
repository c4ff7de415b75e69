"""One cell's reconstructions against the truth and the controls."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from experiments.build import Cell
from experiments.knowledge import drawn, trained_on, truth
from experiments.linearised import Covariance, Signal
from experiments.risk.base import Exposure, predictions
from experiments.simulate import finite
from fl_sim.core.types import Batch, Reconstruction
from fl_sim.data.types import Images
from fl_sim.federation.client import ClientJob
from fl_sim.metrics import gifd
from fl_sim.metrics.identification import identification_rank
from fl_sim.metrics.image import mse, psnr, ssim
from fl_sim.metrics.labels import label_accuracy
from fl_sim.metrics.matching import match, squared_distances
from fl_sim.metrics.perceptual import Lpips, Unavailable
from fl_sim.metrics.risk import default_delta, distance
from fl_sim.runtime.cells import CellStore, Key
from fl_sim.training.local import State

JSON = dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """What the reconstructions of one cell are held against."""

    cell: Cell
    job: ClientJob
    data: Images
    place: CellStore

    @cached_property
    def public(self) -> Batch:
        return self.data.public(self.cell.study.evaluation.public_images)

    def ready(self, attack: str) -> bool:
        """Whether the attack has ended on every observation: one reconstruction is another's control."""
        return all(self.place.attempted(attack, key) for key in self.keys)

    @cached_property
    def keys(self) -> list[Key]:
        return self.place.observation_keys()

    def rounds(self, attack: str, key: Key) -> list[int]:
        """Whose observations of this client the attack was given."""
        joint = any(part.joint for part in self.cell.study.attacks if part.key() == attack)
        return [*(one.round for one in self.place.earlier(key) if joint), key.round]

    def members(self, key: Key) -> tuple[int, ...]:
        return self.place.members(key)

    def truth(self, key: Key) -> Batch:
        return truth(self.job, self.members(key), key.round)

    def trained_on(self, key: Key) -> Tensor | None:
        return trained_on(self.job, self.members(key), key.round)

    def judge(self, attack: str, key: Key, guess: Reconstruction, lpips: Lpips | Unavailable) -> JSON:
        real = self.truth(key)
        images = guess.images[match(guess.images, real.images)]
        candidates, task = self.candidates(key), self.data.task()
        seen, trained = perceptual(lpips, images, real.images), self.trained_on(key)
        predicted, reasons = self.predicted(key)
        return {
            **ended(guess),
            "image_ids": self.image_ids(key, real),
            "labels": real.labels.tolist(),
            "psnr": psnr(images, real.images).tolist(),
            "ssim": ssim(images, real.images).tolist(),
            "lpips": seen.tolist() if isinstance(seen, Tensor) else None,
            "mse": mse(images, real.images).tolist(),
            "gifd": self.as_gifd(images, real.images, lpips),
            "distance": distance(images, real.images, task.std).tolist(),
            "delta": self.cell.study.evaluation.delta or default_delta(task.image_shape, task.std),
            "trained": None if trained is None else _against(guess.images, trained, lpips),
            "label_accuracy": label_accuracy(guess.labels, real.labels),
            "identification_rank": identification_rank(images, real.images, candidates).tolist(),
            "candidates": len(candidates) - 1,  # others than the true image
            "controls": self.controls(attack, key, real, candidates),
            "predicted": predicted,
            "notes": reasons | ({} if isinstance(seen, Tensor) else {"lpips": seen.reason}),
        }

    def predicted(self, key: Key) -> tuple[JSON | None, dict[str, str]]:
        """What ``evaluation.risk`` says of an observation, with reasons where it says nothing; the same for attacks."""
        if not (predictors := self.cell.predictors()):
            return None, {}
        if key not in self._predicted:
            self._predicted[key] = predictions(predictors, self.exposure(key))
        return self._predicted[key]

    @cached_property
    def _predicted(self) -> dict[Key, tuple[JSON, dict[str, str]]]:
        return {}

    def exposure(self, key: Key) -> Exposure:
        """An observation as its client knows it."""
        seen, job = self.place.observation(key), self.job
        told = self.cell.study.adversary.defense == "randomness"
        order, start = (job.seed, "order", key.round, key.client), State(seen.broadcast, seen.buffers)
        return Exposure(
            seen=seen,
            batch=self.truth(key),
            clean=Signal(job.model(), job.protocol, start=start, order=order),
            defenses=job.defenses,
            prior=self.prior,
            drawn=drawn(job, seen) if told else {},
        )

    @cached_property
    def prior(self) -> Covariance:
        """Of the public images; pixels are independent where there are none."""
        task, images = self.data.task(), self.public.images
        return Covariance.fitted(images, task) if len(images) > 1 else Covariance.independent(prod(task.image_shape))

    def as_gifd(self, images: Tensor, real: Tensor, lpips: Lpips | Unavailable) -> JSON | None:
        """What the study asks for, to stand beside GIFD's tables."""
        if not self.cell.study.evaluation.gifd_compat:
            return None
        task = self.data.task()
        seen = None
        if isinstance(lpips, Lpips) and real.shape[1] in (1, 3):
            seen = gifd.lpips(lpips, images, real, task).tolist()
        return {"ssim": gifd.ssim(images, real, task).tolist(), "lpips": seen}

    def candidates(self, key: Key) -> Tensor:
        """The line-up: all that the members hold, the truth among it, and the public images."""
        held = torch.cat([self.data.held(client).images for client in self.members(key)])
        return torch.cat([held, self.public.images])

    def controls(self, attack: str, key: Key, real: Batch, candidates: Tensor) -> JSON:
        """What knows nothing of this observation, or nothing but the public, held against the same truth."""
        unrelated = self.unrelated(attack, key)
        blind = None if unrelated is None else _blind(unrelated, real, candidates)
        public = self.public.images
        if not len(public):
            return {"unrelated_gradient": blind, "mean_image": None, "nearest_public": None}
        mean = public.mean(0, keepdim=True).expand_as(real.images)
        nearest = public[squared_distances(real.images, public).argmin(1)]
        return {
            "unrelated_gradient": blind,
            "mean_image": {"psnr": psnr(mean, real.images).tolist()},
            "nearest_public": {"psnr": psnr(nearest, real.images).tolist()},
        }

    def unrelated(self, attack: str, key: Key) -> Tensor | None:
        """The same attack's reconstruction from other data in the same cell: all that it could invent.

        The next client's of the same round, else the next observation's; its first images where it has more. ``None``
        where no other observation has enough images and shares none with this one.
        """
        mine, place = self.indices(key), self.keys.index(key)
        others = self.keys[place + 1 :] + self.keys[:place]
        for other in sorted(others, key=lambda k: k.round != key.round or k.client == key.client):
            result = self.place.result(attack, other)
            enough = isinstance(result, Reconstruction) and len(result.images) >= len(mine)
            if isinstance(result, Reconstruction) and enough and not set(mine) & set(self.indices(other)):
                return result.images[: len(mine)]
        return None

    def image_ids(self, key: Key, real: Batch) -> list[int | str]:
        """Who the images are, the same in every round: their indices in the data set."""
        del real
        return list(self.indices(key))

    def indices(self, key: Key) -> list[int]:
        """Which images of the data set are behind an observation, in the order of :meth:`truth`."""
        size = self.job.protocol.round_size
        return [int(i) for client in self.members(key) for i in self.data.used(client, key.round, size)]


def ended(guess: Reconstruction) -> JSON:
    """How an attack ended and what it took: known without the truth."""
    return {
        "outcome": guess.outcome,
        "reason": None,
        "loss": finite(guess.loss),
        "iterations": guess.budget.iterations,
        "seconds": round(guess.budget.seconds, 4),
        "device": guess.budget.device,
    }


def failed(reason: str) -> JSON:
    """A failure has no figures."""
    distances = ("psnr", "ssim", "lpips", "mse", "gifd", "distance", "delta", "trained")
    others = ("image_ids", "labels", "label_accuracy", "identification_rank", "candidates", "controls", "predicted")
    spent = ("loss", "iterations", "seconds", "device")
    return {"outcome": "failed", "reason": reason, **dict.fromkeys((*distances, *others, *spent)), "notes": {}}


def perceptual(lpips: Lpips | Unavailable, images: Tensor, real: Tensor) -> Tensor | Unavailable:
    if isinstance(lpips, Unavailable):
        return lpips
    if real.shape[1] not in (1, 3):
        return Unavailable(f"images have {real.shape[1]} channels, LPIPS needs 1 or 3")
    return lpips(images, real)


def _against(guess: Tensor, trained: Tensor, lpips: Lpips | Unavailable) -> JSON:
    """The reconstruction against the images that data defenses made, with an assignment of its own."""
    images = guess[match(guess, trained)]
    seen = perceptual(lpips, images, trained)
    return {
        "psnr": psnr(images, trained).tolist(),
        "ssim": ssim(images, trained).tolist(),
        "lpips": seen.tolist() if isinstance(seen, Tensor) else None,
        "mse": mse(images, trained).tolist(),
    }


def _blind(guess: Tensor, real: Batch, candidates: Tensor) -> JSON:
    images = guess[match(guess, real.images)]
    ranks = identification_rank(images, real.images, candidates)
    return {"psnr": psnr(images, real.images).tolist(), "identification_rank": ranks.tolist()}
