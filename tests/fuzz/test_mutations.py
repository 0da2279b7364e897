"""Changed files are refused with one line that names the section, or load; nothing else happens.

Run for longer, and with a count: python -m tests.fuzz.test_mutations 100000 [program ...]
"""

import collections
import copy
import re
import resource
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import files

WHOLE = files.originals()
SPLIT = {name: files.split(file) for name, file in WHOLE.items()}
NAMES = st.sampled_from(sorted(WHOLE))


@st.composite
def bytes_changed(draw):
    """Bits, ends, and parts of other files; no checksum is made right."""
    file = bytearray(WHOLE[draw(NAMES)])
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["bit", "cut", "added", "zeros", "spliced", "length"]))
        at = draw(st.integers(0, max(len(file) - 1, 0)))
        if kind == "bit" and file:
            file[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del file[at:]
        elif kind == "added":
            file[at:at] = draw(st.binary(min_size=1, max_size=40))
        elif kind == "zeros":
            file[at : at + 64] = bytes(len(file[at : at + 64]))
        elif kind == "spliced":
            other = WHOLE[draw(NAMES)]
            file[at:] = other[draw(st.integers(0, len(other))) :]
        else:
            field = draw(st.sampled_from([(8, 4), (12, 4), (16, 4), (24, 8)]))
            file[field[0] : sum(field)] = draw(st.binary(min_size=field[1], max_size=field[1]))
    return bytes(file)


@st.composite
def header_changed(draw, names=NAMES, within=()):
    """Values of other kinds and sizes, in a file whose checksums are right."""
    name = draw(names)
    header, sections = SPLIT[name]
    ways = [way for way in files.places(header) if way[: len(within)] == within]
    for _ in range(draw(st.integers(1, 2))):
        place, other = draw(st.sampled_from(ways)), draw(st.sampled_from(ways))
        header = files.with_header_changed(header, place, draw(st.integers(0, len(files.STRANGE) + 2)), other)
        ways = [way for way in files.places(header) if way[: len(within)] == within] or [()]
    return files.joined_as_said(header, sections) if isinstance(header, dict) else WHOLE[name][:40]


def program_changed():
    """The same, within a program."""
    return header_changed(st.just("program"), ("program",)) | header_changed(st.just("program"), ("train",))


@st.composite
def sections_changed(draw):
    """Coded symbols and their models, in a file whose checksums are right."""
    header, sections = SPLIT[draw(NAMES)]
    header, sections = copy.deepcopy(header), list(sections)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(sections) - 1))
        section = bytearray(sections[place])
        at = draw(st.integers(0, max(min(len(section) - 1, draw(st.sampled_from([4, 16, 10**6]))), 0)))
        kind = draw(st.sampled_from(["byte", "cut", "added", "swapped"]))
        if kind == "byte" and section:
            section[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del section[at:]
        elif kind == "added":
            section[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            section = bytearray(sections[draw(st.integers(0, len(sections) - 1))])
        sections[place] = bytes(section)
    return files.joined(header, sections)


QUIET = settings(
    max_examples=400,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "a.nnc"


@QUIET
@given(bytes_changed())
def test_changed_bytes(place, file):
    """What is not refused is what it was."""
    if files.outcome(place, file) == "loaded":
        assert file in WHOLE.values()


@QUIET
@given(header_changed())
def test_changed_headers(place, file):
    files.outcome(place, file)


@QUIET
@given(program_changed())
def test_changed_programs(place, file):
    files.outcome(place, file)


@QUIET
@given(sections_changed())
def test_changed_sections(place, file):
    files.outcome(place, file)


STRATEGIES = {
    "bytes": bytes_changed(),
    "header": header_changed(),
    "program": program_changed(),
    "sections": sections_changed(),
}


def main(count: int, *names: str) -> None:
    """Runs each strategy, or those that are named, that often, and says what came of it."""
    strategies = {name: STRATEGIES[name] for name in names or STRATEGIES}
    with tempfile.TemporaryDirectory() as folder:
        for name, strategy in strategies.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcomes = tried(strategy, count, Path(folder, "a.nnc"), same=name == "bytes")
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"{name}: {outcomes.total()} files, {outcomes['loaded']} loaded, {grown:.0f} MiB more memory")
            for reason, often in outcomes.most_common(12):
                print(f"  {often:7} {reason}", flush=True)


def tried(strategy: st.SearchStrategy[bytes], count: int, path: Path, *, same: bool) -> collections.Counter[str]:
    """How often each outcome was; same: what loads must be one of the originals."""
    outcomes: collections.Counter[str] = collections.Counter()

    @settings(QUIET, max_examples=count, phases=[Phase.generate])
    @given(strategy)
    def run(file: bytes) -> None:
        found = files.outcome(path, file)
        assert not same or found != "loaded" or file in WHOLE.values()
        outcomes[re.sub(r"[0-9]+|'.*|section [^:]*", "", found.removeprefix(f"{path}: "))[:60]] += 1

    run()
    return outcomes


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
