"""How well the nearest units agree in their labels: arrays -> rankings -> numbers with intervals."""
