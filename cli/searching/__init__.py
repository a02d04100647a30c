"""Jobs that look for similar cases: what is asked, what is found, and what is known of it; they neither parse nor print."""
