"""The network of a localiser: token grids of slices -> maps of discs, of their names, and of the way to the nearest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from embedstore.lumbar.levels import LEVELS
from heads.localising.spine_prior import Floats

_MAPS = 1 + len(LEVELS) + 2
_SLICES_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Maps:
    """What the networks say of one series.

    Parameters
    ----------
    disc
        (slices, rows, columns) log of the share of "a disc is here" over all tokens of the series.
    names
        (5, slices, rows, columns) log of each level's own share over all tokens of the series.
    ways
        (slices, rows, columns, 2) rows and columns from a token's middle to the nearest disc.
    """

    disc: Floats
    names: Floats
    ways: Floats


class MapNetwork(nn.Module):
    """Standardise, project, and look two tokens far.

    Parameters
    ----------
    features
        Length of a token.
    hidden
        Channels in between.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.project = nn.Linear(features, hidden)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.maps = nn.Conv2d(hidden, _MAPS, 3, padding=1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, rows, columns, features) -> discs (n, rows, columns), names (n, rows, columns, 5), ways (..., 2)."""
        # A token far outside what was learned from (an artefact of attention, an empty corner) must not drown the rest.
        standard = ((tokens - self.mean) / self.deviation).clamp(-6, 6)
        inner = nn.functional.gelu(self.project(standard)).permute(0, 3, 1, 2)
        inner = inner + nn.functional.gelu(self.near(inner))
        found = self.maps(inner).permute(0, 2, 3, 1)
        return found[..., 0], found[..., 1:-2], found[..., -2:]

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the weights by name."""
        return {name: entry.detach().cpu().numpy().copy() for name, entry in self.state_dict().items()}


def network_from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> MapNetwork:
    """Build a network from `MapNetwork.arrays`; raises KeyError or RuntimeError if they are not one's."""
    hidden, features = arrays["project.weight"].shape
    network = MapNetwork(features, hidden)
    network.load_state_dict({name: torch.from_numpy(np.array(entry)) for name, entry in arrays.items()})
    return network.eval()


def read_maps(networks: list[MapNetwork], tokens: npt.NDArray[Any]) -> Maps:
    """Return the mean of what several networks say of (slices, rows, columns, features) tokens."""
    with torch.inference_mode():
        asked = torch.from_numpy(np.ascontiguousarray(tokens))
        parts: list[list[Tensor]] = [[], [], []]
        for network in networks:
            pieces = [network(piece.float()) for piece in torch.split(asked, _SLICES_AT_ONCE)]
            for part, found in zip(parts, zip(*pieces, strict=True), strict=True):
                part.append(torch.cat(found).double())
        disc = torch.stack([_shares(found) for found in parts[0]]).mean(0)
        names = torch.stack([_shares(found.permute(3, 0, 1, 2), lead=1) for found in parts[1]]).mean(0)
        return Maps(disc.numpy(), names.numpy(), torch.stack(parts[2]).mean(0).numpy())


def _shares(logits: Tensor, *, lead: int = 0) -> Tensor:
    """Return the log of the softmax over all axes but the first `lead`."""
    return logits.flatten(lead).log_softmax(-1).view_as(logits)
