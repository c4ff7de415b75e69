"""Is it the same record in every round? What attacks that join rounds suppose."""

from experiments.build import Cell
from experiments.parts import AttackPart
from fl_sim.core.contracts import DataDefense
from fl_sim.core.errors import ConfigError


def refuse_other_images(cell: Cell, part: AttackPart, data_dir: str | None) -> None:
    """Rounds that are fitted together must be of the same images; recorded updates are taken at their word.

    Raises:
        ConfigError: A client uses other images in one of the attacked rounds, or changes them anew.
    """
    if not part.joint:
        return
    federation, adversary, data = cell.study.federation, cell.study.adversary, cell.data(data_dir)
    size = cell.protocol().round_size
    rounds = cell.attacked_rounds(data_dir)
    for client in adversary.clients or range(federation.clients):
        used = {number: set(data.used(client, number, size).tolist()) for number in rounds}
        if other := [number for number in rounds if used[number] != used[min(rounds)]]:
            raise ConfigError(
                f"attack {part.key()}: joint = true takes a client's images as the same in every attacked round, but "
                f"client {client} uses others in round {other[0]} than in round {min(rounds)}: let clients hold one "
                f"batch, data.per_client = {federation.batch_size}, or leave joint out"
            )
    if changed := [type(d).__name__ for d in cell.defenses() if isinstance(d, DataDefense)]:
        raise ConfigError(
            f"attack {part.key()}: joint = true takes a client's images as the same in every attacked round, but "
            f"{changed[0]} changes them anew in each: leave joint out"
        )
