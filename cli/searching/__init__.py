"""Jobs that look for similar cases: what is asked, what is found, what is known of it. They neither parse nor print."""
