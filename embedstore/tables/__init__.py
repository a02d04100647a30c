"""Tables of users: any dialect -> one table, cells by stated rules, and files found by the paths in it."""
