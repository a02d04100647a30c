"""What answers for studies are made of: the localiser that a run needs, and what is known of each unit."""
