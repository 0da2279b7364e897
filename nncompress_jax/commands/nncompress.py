"""The installed command: `nncompress VERB ...`."""

import importlib
import sys

from nncompress_jax.errors import NotInstalledError, require

VERBS = {
    "train": "trains a network, or goes on where it stopped",
    "evaluate": "tests a network: accuracy and confusion by class",
    "compress": "compresses a trained network into one file",
    "compare": "networks as floats, in 8 bits and with simulated ones, in a table",
    "inspect": "what is in a file: a row for each weight",
    "verify": "whether a file is whole",
    "predict": "what is on pictures, by the network in a file",
    "export": "writes the network in a file as ONNX",
}


def main() -> None:
    """Hands on to a verb."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        lines = [f"  {name:9} {line}" for name, line in VERBS.items()]
        print("\n".join(["usage: nncompress VERB ...", "", *lines, "", "nncompress VERB --help says more."]))
    elif verb not in VERBS:
        print(f"error: unknown verb {verb!r}; choose one of {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    else:
        try:
            require(f"nncompress {verb}", "etils", "tyro", extra="train")
            cli, module = (importlib.import_module(f"nncompress_jax.commands.{name}") for name in ("cli", verb))
        except NotInstalledError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        cli.run(module.main, module.Options, name=f"nncompress {verb}", flags=sys.argv[2:])
