"""From the images of a unit to the rows that a head sees."""
