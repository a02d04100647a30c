"""Where slices lie: each in its series, and its pixels in the patient."""
