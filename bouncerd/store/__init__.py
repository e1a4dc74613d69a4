"""What we remember: servers and devices, on SQLite now."""
