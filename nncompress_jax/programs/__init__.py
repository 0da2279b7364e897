"""Programs of networks as JSON: written from what JAX traces, read without believing anything."""
