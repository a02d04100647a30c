"""The owner's map as a table for people: every clinical id beside the digest that stands for it in stores."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from embedstore.errors import DataError, UsageError
from embedstore.files import StrPath, write_durable
from embedstore.keys.key_file import Key
from embedstore.keys.keyed_ids import CLINICAL_IDS
from embedstore.keys.owner_map import map_file, read_map
from embedstore.queries.image_files import require_key_of
from embedstore.store.layout import STORE_FILE
from embedstore.store.reader import Store

COLUMNS = ("level", "clinical_id", "keyed_id", "file")
_RUN_FILE = "run.json"
_LEFT_OUT = "left out"


def write_mapping(target: StrPath, key: Key, *, store: Store | None = None) -> Counter[str]:
    """Write the map of a key as CSV, readable by its owner only.

    Parameters
    ----------
    target
        The file; replaced if it exists, and only once complete.
    key
        The key; the map lies beside it.
    store
        Only the ids of this store; by default those of every folder that was extracted with the key.

    Returns
    -------
    Counter
        Level (``patient``, ``study``, ``series``, ``accession``, ``image``, ``left out``) -> how many lines.

    Raises
    ------
    UsageError
        If the file would lie in a store or a run, which are handed on.
    DataError
        If there is no map yet, the key is another than the store's, or the file cannot be written.
    """
    place = Path(target)
    _require_private(place)
    lines = _lines(key, store)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    try:
        write_durable(place, text.getvalue().encode(), label="mapping", mode=0o600)
    except OSError as error:
        raise DataError(f"{place} cannot be written: {error.strerror}. Choose another place") from error
    return Counter(level for level, *_ in lines)


def _require_private(place: Path) -> None:
    for folder in place.resolve().parents:
        for name, what in ((STORE_FILE, "store"), (_RUN_FILE, "run")):
            if (folder / name).is_file():
                raise UsageError(
                    f"{place} lies in the {what} {folder}, which is handed on; the map says who the patients are. "
                    "Write it beside the key"
                )


def _lines(key: Key, store: Store | None) -> list[tuple[str, str, str, str]]:
    rows = read_map(key).to_pylist()
    if not rows:
        raise DataError(
            f"{map_file(key)}: there is no map beside the key yet; run the extraction with this key once, also of a "
            "store that is finished: nothing is computed again"
        )
    wanted = None
    if store is not None:
        require_key_of([store], key)
        wanted = set(store.image_ids)
    found: dict[tuple[str, str, str, str], None] = {}
    for row in rows:
        file = f"{row['root']}/{row['path']}"
        if row["image_id"] is None:
            if store is None:
                found[_LEFT_OUT, row["left_out"] or "", "", file] = None
            continue
        if wanted is not None and row["image_id"] not in wanted:
            continue
        for attribute, (level, column) in CLINICAL_IDS.items():
            clinical = row[attribute]
            if level == "image":
                found[level, clinical or "", row[column], file] = None
            elif clinical and row[column]:
                found[level, clinical, row[column], ""] = None
    order = {level: place for place, (level, _) in enumerate(CLINICAL_IDS.values())}
    return sorted(found, key=lambda line: (order.get(line[0], len(order)), line))
