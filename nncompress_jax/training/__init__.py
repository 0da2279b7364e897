"""Training and testing of any linen network on image classification."""
