"""How it learns: losses, steps, averages of weights, validation by study, and a state that a kill does not lose."""
