"""Records as a table with one row an image, for notebooks and spreadsheets."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.pipeline import Run
from fl_sim.core.errors import ConfigError
from fl_sim.runtime import files

Row = dict[str, Any]
_PLAIN = ("study", "cell", "defense", "seed", "round", "client", "attack", "outcome", "reason")
_EACH = ("psnr", "ssim", "lpips", "mse", "distance", "identification_rank")  # lists with one number an image
_WHOLE = ("delta", "label_accuracy", "candidates", "loss", "iterations", "seconds", "device")


def export(run: Run, path: Path) -> int:
    """Write what was judged to ``path``, .parquet or .csv; returns the number of rows.

    A row an image, and one without figures where an attack made none. Beside a record's own columns: ``image``, its
    place in the batch; ``image_id``, the same for the same image in every row; ``rounds``, how many were fitted
    together; ``class``, its true one; ``axis.NAME``, the cell's place in the grid; ``control.NAME.psnr``;
    ``trained.METRIC``, against what data defenses made of the original; ``predicted.NAME``, of ``evaluation.risk``;
    ``accuracy`` and ``bytes_up``, of the round.

    Raises:
        ConfigError: Another suffix, or nothing was judged.
    """
    if path.suffix not in _WRITERS:
        raise ConfigError(f"expected a file that ends in {' or '.join(_WRITERS)}, got {path.name}")
    rounds = {(cell.name, row["round"]): row for cell in run.cells for row in run.store.cell(cell.folder).training()}
    found = [row for record in run.store.records() for row in rows(record, rounds)]
    if not found:
        raise ConfigError(f"expected records in {run.store.path}, got none: judge it with `fl-sim evaluate` first")
    import pyarrow as pa

    columns = dict.fromkeys(name for row in found for name in row)
    table = pa.table({name: [row.get(name) for row in found] for name in columns})
    files.write(path, _WRITERS[path.suffix](table))
    return len(found)


def rows(record: Mapping[str, Any], rounds: Mapping[tuple[str, int], Mapping[str, Any]]) -> Iterator[Row]:
    """One for each image of a record; ``rounds`` are training's, by cell and number."""
    trained, controls = record.get("trained") or {}, record["controls"] or {}
    predicted = record.get("predicted") or {}
    known = rounds.get((record["cell"], record["round"]), {})
    same = {
        **{name: record[name] for name in _PLAIN},
        **{f"axis.{name}": str(value) for name, value in record["axes"].items()},
        "rounds": len(record.get("rounds") or [0]),
        "accuracy": known.get("accuracy"),
        "bytes_up": known.get("bytes_up"),
    }
    for i in range(len(record["psnr"] or (None,))):
        yield {
            **same,
            "image": i,
            "image_id": str(images[i]) if (images := record.get("image_ids")) else None,
            "class": _at(record.get("labels"), i),
            **{name: _at(record[name], i) for name in _EACH},
            **{f"control.{name}.psnr": _at(control["psnr"], i) for name, control in controls.items() if control},
            **{f"trained.{name}": _at(values, i) for name, values in trained.items()},
            **{f"predicted.{name}": _at(values, i) for name, values in predicted.items()},
            **{name: record[name] for name in _WHOLE},
        }


def _at(values: Iterable[float] | None, place: int) -> float | None:
    return None if values is None else list(values)[place]


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def _csv(table: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink)
    return bytes(sink.getvalue())


_WRITERS: Mapping[str, Callable[[Any], bytes]] = MappingProxyType({".parquet": _parquet, ".csv": _csv})
