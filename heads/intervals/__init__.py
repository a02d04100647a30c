"""Limits that the percentiles of bootstrap draws do not give: arrays in, numbers out."""
