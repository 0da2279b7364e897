"""What a shell can call: each verb of `nncompress` is a file with its `Options` and its `main`."""
