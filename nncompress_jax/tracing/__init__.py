"""Programs: reading them, running them on compressed weights, what they cost. No method, no file, no training."""
