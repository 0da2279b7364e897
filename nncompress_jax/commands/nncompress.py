"""The installed command: `nncompress VERB ...`."""

import importlib
import sys

from nncompress_jax.errors import NotInstalledError, require

GROUPS = {
    "make a network small": {
        "compress": "compresses a trained network into one file",
        "export": "writes the network in a file as ONNX",
    },
    "look at it": {
        "inspect": "what is in a file: a summary, and a row for each weight",
        "report": "a page of HTML: layer by layer, before compression and now",
        "evaluate": "tests a network: accuracy and confusion by class",
        "compare": "networks as floats, in 8 bits and with simulated ones, in a table",
        "verify": "whether a file is whole",
    },
    "use it": {
        "predict": "what is on pictures, by the network in a file",
    },
    "train": {
        "train": "trains a network, compressed or not, or goes on where it stopped",
    },
    "set up": {
        "doctor": "versions, devices, caches and data sets that are found",
        "completion": "for bash and zsh: verbs and options by the tab key",
    },
}
VERBS = {verb: line for verbs in GROUPS.values() for verb, line in verbs.items()}


def main() -> None:
    """Hands on to a verb."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        lines = ["usage: nncompress VERB ..."]
        for group, verbs in GROUPS.items():
            lines += ["", f"{group}:", *(f"  {name:11} {line}" for name, line in verbs.items())]
        print("\n".join([*lines, "", "nncompress VERB --help says more."]))
    elif verb not in VERBS:
        print(f"error: unknown verb {verb!r}; choose one of {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    else:
        try:
            require(f"nncompress {verb}", "docstring_parser", "etils", "tyro", extra="train")
            cli, module = (importlib.import_module(f"nncompress_jax.commands.{name}") for name in ("cli", verb))
        except NotInstalledError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        cli.run(module.main, module.Options, name=f"nncompress {verb}", flags=sys.argv[2:])
