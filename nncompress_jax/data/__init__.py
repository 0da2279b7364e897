"""Images and labels: where they come from, and how they are augmented."""
