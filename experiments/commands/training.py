"""Fitting priors: densities and generators, each with the options that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fl_sim.data.types import Source


def train_density(kind: Any, source: Source, split: str, images: int | None, seed: int, out: Path, **how: Any) -> None:
    """``--kind gaussian|mixture|vae``."""
    from experiments.fitting import Autoencoder
    from experiments.priors import Order, command, parse_std

    vae = Autoencoder(
        latents=how["latents"] or Autoencoder.latents,
        hidden=how["hidden"],
        decoder_std=parse_std(how["decoder_std"]),
        epochs=how["epochs"],
    )
    command(Order(kind, source, split, images, how["components"], vae, seed, out), json=how["json"])


def train_generator(
    kind: Any, source: Source, split: str, images: int | None, seed: int, out: Path, **how: Any
) -> None:
    """``--kind gan|decoder|vaegan``."""
    from experiments.generators.making import Order, command
    from experiments.generators.training import Recipe

    recipe = Recipe(
        kind=kind,
        architecture=how["architecture"],
        latents=how["latents"] or Recipe.latents,
        width=how["width"],
        seed=seed,
    )
    rest = {name: how[name] for name in ("epochs", "minutes", "samples", "fresh")}
    command(Order(recipe=recipe, source=source, split=split, images=images, out=out, **rest), json=how["json"])
