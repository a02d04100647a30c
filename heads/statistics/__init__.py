"""From arrays to numbers with intervals; nothing here knows a head or a file."""
