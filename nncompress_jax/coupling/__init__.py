"""Which channels of which weights have to be removed together, found by tracing. It decides nothing."""
