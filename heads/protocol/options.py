"""What a probe is told beside its view: one frozen object from the command line to the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedstore.errors import UsageError, require_number, require_whole_number
from embedstore.view import PLACE, View, take_targets, without_split
from heads.base import HeadFamily
from heads.few_shots import few_shots
from heads.inputs.class_weights import CLASS_WEIGHTS, ClassWeights
from heads.inputs.input_ways import HeadInputs, all_inputs, named_inputs
from heads.inputs.leakage import leakage_groups
from heads.inputs.pooling import BINNED, IMAGES, PROBE_POOLINGS
from heads.protocol.fitting import FINALS, AskedFinal
from heads.registry import head_family, head_needs
from heads.statistics.bootstrap import DRAWS
from heads.statistics.conformal import COVERAGE

LEAST_REPEATS, MOST_REPEATS = 2, 50


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """How one head is fitted, selected, calibrated and evaluated.

    Parameters
    ----------
    head
        Name of an installed head.
    preset
        Name of the published protocol whose grid is searched (`heads.estimators.presets`); `probe` is given its
        family.
    targets
        Targets of the task, in this order; all by default.
    cross_validate
        Evaluate every unit out of fold, whatever official split there is.
    pooling
        How a study's images give one answer; the task's rule by default. ``binned`` has a mean for each place
        (`heads.inputs.binned`) and needs the view's column ``place``.
    with_columns
        Metadata of the view that the head gets beside the vectors; all that the view holds by default.
    select_inputs
        Choose pooling, and whether metadata helps, by out-of-fold log loss among all ways there are.
    select_imbalance
        Also try class weights, oversampling and the focal loss as points of the grid, of heads that have them
        (`heads.solvers.imbalance`); each is undone in the probabilities.
    inputs
        Choose among these ways only.
    shots
        Learn from so many units only, one of each patient (`heads.few_shots.few_shots`); all by default.
    shared_heads
        Groups of targets that one head answers (`heads.inputs.shared_heads`), each target in one; by default each
        target has a head of its own.
    strict_targets
        Refuse targets that are too rare to learn; by default they are left out, counted and named.
    class_weights
        Weights of training: ``none``, ``balanced`` or the ``task``'s; undone in the probabilities.
    folds
        Patient folds of selection and calibration, and of the outer cross-validation; 2 or more. Fewer are made where
        no target could be learned otherwise.
    draws
        Bootstrap draws of patients; 1 or more.
    final
        What answers: one head ``refit`` on all rows, or an ``ensemble`` of the heads of several partitions into folds;
        ``auto`` is what suits the head.
    repeats
        Partitions of an ensemble, 2 or more; by default 4, and 2 for many rows. A refitted head has none.
    coverage
        Rate at which conformal sets shall hold the true class; above 0 and below 1.
    learning_curve
        Also run the protocol on fewer patients (`heads.protocol.learning_curve.learning_curve`).
    bank
        Keep vectors of training images, from which a run tells units unlike them. They are patients' data: a run that
        is handed on may do without, and then has no such evidence.
    seed
        Of folds, heads and bootstrap.
    device
        Where to fit: ``auto``, ``cpu`` or ``cuda``; by default where the grid says. Scores are always computed on
        the CPU.

    Raises
    ------
    UsageError
        If a value is outside its range, or two contradict each other.

    Examples
    --------
    >>> ProbeOptions(head="mlp", folds=3).folds
    3
    >>> ProbeOptions(draws=0)
    Traceback (most recent call last):
    embedstore.errors.UsageError: draws must be 1 or more and folds 2 or more; found draws=0, folds=5
    """

    head: str = "logistic"
    preset: str | None = None
    targets: Sequence[str] = ()
    cross_validate: bool = False
    pooling: str | None = None
    with_columns: Sequence[str] | None = None
    select_inputs: bool = False
    select_imbalance: bool = False
    inputs: Sequence[HeadInputs] | None = None
    shots: int | None = None
    shared_heads: Sequence[Sequence[str]] = ()
    strict_targets: bool = False
    class_weights: ClassWeights = "none"
    folds: int = 5
    final: AskedFinal = "auto"
    repeats: int | None = None
    draws: int = DRAWS
    coverage: float = COVERAGE
    learning_curve: bool = False
    bank: bool = True
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("draws", "folds", "seed", *(["shots"] if self.shots is not None else [])):
            require_whole_number(name, getattr(self, name))
        if self.shots is not None and self.shots < 1:
            raise UsageError(f"shots must be 1 or more; found {self.shots}")
        require_number("coverage", self.coverage)
        if not 0 < self.coverage < 1:
            raise UsageError(f"coverage must be above 0 and below 1; found {self.coverage}")
        if self.draws < 1 or self.folds < 2:
            raise UsageError(
                f"draws must be 1 or more and folds 2 or more; found draws={self.draws}, folds={self.folds}"
            )
        if self.repeats is not None:
            require_whole_number("repeats", self.repeats)
            if not LEAST_REPEATS <= self.repeats <= MOST_REPEATS:
                raise UsageError(
                    f"repeats must be {LEAST_REPEATS} to {MOST_REPEATS}: how much they differ says how noisy a head's "
                    f"score is; found {self.repeats}"
                )
            if self.final == "refit":
                raise UsageError(f"`final='refit'` has no repeats; leave repeats={self.repeats} out")
        for name, names in (("targets", self.targets), ("with_columns", self.with_columns)):
            # Of a string alone, every letter would be taken for a name.
            if isinstance(names, str):
                raise UsageError(f"{name} must be a sequence of names; found {names!r}: write [{names!r}]")
        self._require_known("pooling", self.pooling, (None, *PROBE_POOLINGS))
        self._require_known("class_weights", self.class_weights, CLASS_WEIGHTS)
        self._require_known("final", self.final, FINALS)
        choice = "select_inputs=True" if self.select_inputs else "inputs" if self.inputs is not None else ""
        if choice and self.pooling is not None:
            raise UsageError(f"{choice} chooses the pooling; leave pooling={self.pooling!r} out")
        if self.select_inputs and self.inputs is not None:
            raise UsageError("select_inputs=True chooses among all ways; leave inputs out, or select_inputs")

    def _require_known(self, name: str, found: str | None, known: Sequence[str | None]) -> None:
        if found not in known:
            listed = ", ".join(str(entry) for entry in known)
            raise UsageError(f"{name} must be one of {listed}; found {found!r}")

    def take(self, view: View) -> View:
        """Return what these options ask for of a view: targets, metadata columns, with or without its split.

        Raises
        ------
        UsageError
            If the task lacks a target, or the view a metadata column.
        DataError
            If there are too few patients for `shots`.
        """
        if self.targets:
            view = take_targets(view, self.targets)
        if self.with_columns is not None:
            lacking = [column for column in self.with_columns if column not in view.metadata]
            if lacking:
                raise UsageError(
                    f"with_columns: the view holds no column {lacking[0]!r}; it holds "
                    f"{', '.join(view.metadata) or 'none'}: load it with_columns={list(self.with_columns)}"
                )
            kept = [*self.with_columns, *(column for column in self.place_columns if column in view.metadata)]
            view = replace(view, metadata={column: view.metadata[column] for column in dict.fromkeys(kept)})
        view = without_split(view) if self.cross_validate else view
        if self.shots is None:
            return view
        return few_shots(view, self.shots, groups=leakage_groups(view), seed=self.seed)

    @property
    def place_columns(self) -> tuple[str, ...]:
        """The columns that the pooling needs of every image; ``()`` where it needs none."""
        binned = self.pooling == BINNED or any(way.pooling == BINNED for way in self.inputs or ())
        return (PLACE,) if binned else ()

    def require_no_vectors(self) -> None:
        """Refuse a head that is made of training vectors where none may be kept; raises UsageError."""
        if not self.bank and head_needs(self.head).holds_vectors:
            raise UsageError(
                f"`head={self.head!r}` is made of the vectors that it learned from; a run without a bank of vectors "
                "needs another head"
            )

    def require_final(self) -> None:
        """Refuse an ensemble of heads that are made of the vectors that they learned from; raises UsageError."""
        if self.final == "ensemble" and head_needs(self.head).holds_vectors:
            raise UsageError(
                f"`head={self.head!r}` keeps the vectors that it learned from, which an ensemble would keep many "
                "times; leave `final='ensemble'` out"
            )

    def ways(self, view: View) -> tuple[HeadInputs, ...]:
        """Return the ways of giving units to the head that are compared, one where there is no choice.

        Raises
        ------
        UsageError
            As `heads.inputs.input_ways.named_inputs`.
        """
        inputs, pooling = all_inputs(view) if self.select_inputs else self.inputs, self.pooling
        pooled_by_task = inputs is None and pooling is None and view.task.pooling != IMAGES
        if pooled_by_task and head_needs(self.head).images:
            pooling = IMAGES
        return named_inputs(view, pooling, inputs)

    def grid(self, family: HeadFamily | None) -> HeadFamily:
        """Return the grid to search, on its device: `family`, or by default the head's own.

        Raises
        ------
        UsageError
            If no installed package offers the head, or a preset comes without its family.
        """
        if family is None and self.preset is not None:
            raise UsageError(
                f"preset={self.preset!r} names a grid, which family must bring: "
                f"heads.estimators.presets.preset_family({self.preset!r})[1]"
            )
        found = head_family(self.head) if family is None else family
        if self.select_imbalance:
            found = found.with_imbalance()
        return found if self.device is None else found.on_device(self.device)


def options_of(options: ProbeOptions | str) -> ProbeOptions:
    """Return the options that are meant; a string is the name of a head, and all else is as it is by default."""
    return ProbeOptions(head=options) if isinstance(options, str) else options
