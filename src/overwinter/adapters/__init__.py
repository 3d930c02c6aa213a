"""What the kernel's Protocols are made of: SQLite, Monty, Python functions, a directory."""
