"""Where the levels of a spine are: maps from token grids, an exact path over them, points in patient millimetres."""
