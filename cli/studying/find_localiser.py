"""The localiser whose crops a run learned from: the one that is named, or found beside the run by its digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cli.project import shown
from cli.studying.openings import Openings
from embedstore.errors import EmbedError, IdentityMismatch, UsageError, first_few
from embedstore.files import StrPath
from embedstore.identity import Identity
from embedstore.lumbar.crop_rule import LOCALISED, CropRule, rule_from_json
from embedstore.lumbar.level_points import LevelPoints
from embedstore.store.layout import StoreLayout
from embedstore.store.reader import Store
from heads.localising.localiser import Localiser
from heads.localising.localiser_run import digest_of_localiser, read_levels, read_localiser
from heads.runs.run import Run

_SHOWN = 12


def crop_rule_of(run: Run) -> CropRule:
    """Return by which rule the crops of a run were cut.

    Raises
    ------
    UsageError
        If they were cut around oracle points, which no new study has.
    DataError
        If the rule is another one than this version's.
    """
    rule = rule_from_json(run.identity.crop or {}, source=f"run {run.folder}")
    if rule.points != LOCALISED:
        raise UsageError(
            f"run {shown(run.folder)} learned from crops around {rule.points} points, placed by readers who saw these "
            "images; new studies have none. Probe a store of crops by a localiser (embed localise, then embed extract "
            "with `crops`), or give a store"
        )
    return rule


def localiser_of_run(run: Run, *, named: StrPath | None = None, places: Sequence[StrPath] = ()) -> Localiser:
    """Return the localiser by which the crops of a run were cut, of the run's encoder.

    Parameters
    ----------
    run
        A run over localised crops.
    named
        The localiser's run; None to look for it beside the run and in `places`.
    places
        Runs of localisers, or folders of runs.

    Raises
    ------
    IdentityMismatch
        If the named localiser is another one, or its tokens are of another encoder than the run's vectors.
    UsageError
        If none is named and none is found; or as `crop_rule_of`.
    DataError
        As `heads.localising.localiser_run.read_localiser`.
    """
    digest = crop_rule_of(run).localiser_sha256
    if named is not None:
        found = read_localiser(named)
        if found.digest != digest:
            raise IdentityMismatch(
                f"run {shown(run.folder)} learned from crops of localiser {digest[:_SHOWN]}, and "
                f"{shown(Path(named))} is {found.digest[:_SHOWN]}: its levels lie elsewhere. Name the folder of that "
                "localiser, or leave `levels` out to have it found beside the run"
            )
    else:
        looked = [run.folder.absolute().parent, *(Path(place) for place in places)]
        folder = folder_of_localiser(digest, looked)
        if folder is None:
            raise UsageError(
                f"run {shown(run.folder)} learned from crops of localiser {digest[:_SHOWN]}, which is not in "
                f"{first_few(dict.fromkeys(shown(place) for place in looked))}; name its folder with `levels`"
            )
        found = read_localiser(folder)
    _images_alone(run.identity).require_same(
        _images_alone(found.identity),
        holder=f"run {shown(run.folder)}, by its localiser {shown(_folder(found))},",
    )
    return found


def folder_of_localiser(digest: str, places: Sequence[Path]) -> Path | None:
    """Return the run of a localiser: one of `places`, or in one of them; None if it is not there."""
    return next((place for place in _runs_in(places) if digest_of_localiser(place) == digest), None)


def slices_of(localiser: Localiser, places: Sequence[Path], opened: Openings) -> list[Store]:
    """Return the stores whose tokens a localiser learned from, as far as they lie in some folders and can be read."""
    names = [source["store"] for source in localiser.document.get("sources", ())]
    found = []
    for path in dict.fromkeys(place / name for place in places for name in names):
        # Nobody asked for it: without it studies go by what their files are called.
        with suppress(EmbedError):
            if StoreLayout(path).store_file.is_file():
                found.append(opened.store(path))
    return [store for store in found if store.identity.sha256 == localiser.identity.sha256]


def levels_of(localiser: Localiser) -> LevelPoints | None:
    """Return the levels of the studies that a localiser was made from; None before it is saved.

    Those of the studies that it learned from were found by networks that never saw them, as in stores of crops.
    """
    return None if localiser.folder is None else read_levels(localiser.folder)


def _folder(localiser: Localiser) -> Path:
    return Path() if localiser.folder is None else localiser.folder


def _runs_in(places: Sequence[Path]) -> Iterator[Path]:
    for place in dict.fromkeys(place.absolute() for place in places):
        yield place
        if place.is_dir():
            yield from sorted(entry for entry in place.iterdir() if entry.is_dir())


def _images_alone(identity: Identity) -> Identity:
    """Return how an image becomes a vector, whatever it is cut from and whether tokens are kept beside it."""
    preprocess = {name: value for name, value in identity.preprocess.items() if name != "crop"}
    return replace(identity, preprocess=preprocess, arrays={})
