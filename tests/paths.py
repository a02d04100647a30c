"""Where tests find the project and their own data, wherever they stand."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
