"""Who learns, who is evaluated, and what is chosen where: selection, calibration, evaluation."""
