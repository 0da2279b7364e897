"""How one operation runs on each backend."""
