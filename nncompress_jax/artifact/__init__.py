"""The one-file format of compressed networks, specified in docs/format.md."""
