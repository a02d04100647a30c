"""Files that a user names: which study, series and columns each has, and their vectors by whole units."""
