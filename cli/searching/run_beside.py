"""The probabilities of a run beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cli.searching.hit_facts import Beside
from embedstore.errors import UsageError
from embedstore.queries.derived_columns import can_say
from embedstore.queries.load_view import load_units
from embedstore.queries.manifest_columns import own_unit_names
from embedstore.queries.search import Index
from embedstore.store.reader import Store
from heads.protocol.predictions import EVALUATION, OUT_OF_FOLD, Predictions
from heads.runs.run import Run

PREDICTED = "predicted"


@dataclass(frozen=True, eq=False)
class RunBeside:
    """The probabilities of a run for units of a store: those that it kept, else those that it says now.

    Parameters
    ----------
    run
        The loaded run, of the store's identity.
    store, index
        The store and its images.
    """

    run: Run
    store: Store
    index: Index

    def __post_init__(self) -> None:
        self.run.require_identity(self.store.identity)

    def of_images(self, positions: Sequence[int]) -> list[Beside]:
        """Return what the run says of the units of images of the index.

        Raises
        ------
        UsageError
            If a unit that the run did not keep needs metadata that the store does not have.
        """
        names = [str(self._units[position]) for position in positions]
        lacking = [name for name in dict.fromkeys(names) if name not in self._kept]
        said = self._kept | self._predicted(lacking)
        return [said[name] for name in names]

    def _predicted(self, names: Sequence[str]) -> dict[str, Beside]:
        if not names:
            return {}
        columns = self.run.predictor.columns
        held = [column for column in columns if can_say(column, self.store.table.column_names)]
        if len(held) < len(columns):
            lacking = sorted(set(columns) - set(held))
            raise UsageError(
                f"run {self.run.folder} was fitted with {', '.join(lacking)}, which store {self.store.path} lacks"
            )
        units = load_units(
            self.store,
            self.run.document["task"]["unit"],
            with_columns=held,
            image_rules=self.run.image_rules,
            ids=names,
        )
        probabilities = self.run.predict(
            units.X,
            units.unit_of_image,
            n_units=len(units.unit_ids),
            metadata=units.metadata,
            image_of_target=units.image_of_target,
        )
        return {
            name: self._beside(name, row, PREDICTED)
            for name, row in zip(units.unit_ids.tolist(), probabilities, strict=True)
        }

    def _beside(self, name: str, probabilities: Any, source: str) -> Beside:
        targets = {
            target: dict(zip(self.run.classes, row.tolist(), strict=True))
            for target, row in zip(self.run.targets, probabilities, strict=True)
            if not np.isnan(row).any()
        }
        return Beside(unit_id=name, probabilities=targets, source=source)

    @cached_property
    def _units(self) -> Any:
        return own_unit_names(self.index.table, self.run.document["task"]["unit"])

    @cached_property
    def _kept(self) -> dict[str, Beside]:
        kept: dict[str, Beside] = {}
        parts: list[tuple[str, Predictions]] = [
            (OUT_OF_FOLD, self.run.out_of_fold),
            (EVALUATION, self.run.evaluated),
        ]
        for source, part in parts:
            for name, row in zip(part.unit_ids.tolist(), part.probabilities, strict=True):
                # Without a label nothing was said out of fold.
                if not np.isnan(row).all():
                    kept[name] = self._beside(name, row, source)
        return kept
