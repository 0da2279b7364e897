"""Channel pruning: how important channels are, which go, and smaller networks without them."""
