"""Files that replace others: what stays of the old one, what is left behind, and what is said."""

import fcntl
import os
import stat
import subprocess
import sys
import threading

import pytest

from nncompress_jax.errors import InputError
from nncompress_jax.files import replacing

LEFT = "0123abcd"


def write(path, content=b"new"):
    with replacing(path) as file:
        file.write(content)


def test_modes_stay(tmp_path):
    path = tmp_path / "a"
    before = os.umask(0o027)
    try:
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for mode in (0o600, 0o664, 0o444):
            path.chmod(mode)
            write(path, b"newer")
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_the_time_is_that_of_the_new_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.utime(path, (10**9, 10**9))
    write(path)
    assert path.stat().st_mtime > 10**9


@pytest.mark.skipif(os.getuid() != 0, reason="only an administrator gives files away")
def test_the_owner_stays(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 12345, 54321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (12345, 54321, b"new")


def test_links_stay(tmp_path):
    """To a file in another folder, through two links, and to one that is not there yet."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/a")
    (tmp_path / "second").symlink_to("link")
    for content in (b"first", b"second"):
        write(tmp_path / "second", content)
        assert (tmp_path / "folder" / "a").read_bytes() == content
    assert [os.readlink(tmp_path / name) for name in ("link", "second")] == ["folder/a", "link"]
    assert os.listdir(tmp_path / "folder") == ["a"]


@pytest.mark.parametrize("name", ["a" * 250, "a" * 255, "ä" * 125, "名" * 85])
def test_long_names(name, tmp_path):
    write(tmp_path / name)
    write(tmp_path / name, b"newer")
    assert (tmp_path / name).read_bytes() == b"newer"
    assert os.listdir(tmp_path) == [name]


def test_what_killed_processes_left_is_removed(tmp_path):
    """And nothing else: not what another process is writing, nor files of other names."""
    path = tmp_path / "a.nnc"
    others = ["a.nnc.partial", ".a.nnc.mine.partial", f".b.nnc.{LEFT}.partial", f".a.nnc.{LEFT}"]
    held = tmp_path / ".a.nnc.11111111.partial"
    for name in [*others, f".a.nnc.{LEFT}.partial", ".a.nnc.x_yz1234.partial", held.name]:
        (tmp_path / name).write_bytes(b"half")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write(path)
        assert sorted(os.listdir(tmp_path)) == sorted([*others, held.name, "a.nnc"])
    write(path)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a.nnc"])


KILLED = """
import os, sys
from nncompress_jax.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os._exit(9)
"""


@pytest.mark.system
def test_a_killed_process_leaves_nothing_for_long(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == 9
        assert path.read_bytes() == b"old"
        assert len(os.listdir(tmp_path)) == 2
    write(path)
    assert os.listdir(tmp_path) == ["a"]


def test_many_writers_of_one_file(tmp_path):
    """Each whole, none removed by another."""
    path, wrong = tmp_path / "a", []

    def work(letter):
        for _ in range(20):
            try:
                write(path, letter * 1000)
            except InputError as error:
                wrong.append(error)
            wrong.extend([] if path.read_bytes() in (b"a" * 1000, b"b" * 1000, b"c" * 1000) else ["half"])

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert os.listdir(tmp_path) == ["a"]


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(error):
        with replacing(path) as file:
            file.write(b"half")
            raise error

    for error in (KeyboardInterrupt(), ValueError("no")):
        with pytest.raises(type(error)):
            fail(error)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(InputError, match="No space left on device.; what was there before is as it was"):
        fail(OSError(28, "No space left on device"))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "nowhere"])
def test_what_is_no_file(kind, tmp_path):
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("a")
    else:
        path = tmp_path / "none" / "a"
    before = os.listdir(tmp_path)
    words = {
        "folder": "Is a directory",
        "pipe": "Not a regular file",
        "loop": "Too many levels",
        "nowhere": "No such file",
    }
    with pytest.raises(InputError, match=f"cannot be written .{words[kind]}"):
        write(path)
    assert os.listdir(tmp_path) == before


def test_a_folder_that_can_be_written_but_not_read(tmp_path, monkeypatch):
    """The tests may run as an administrator, who can read every folder."""
    opened = os.open

    def refusing(path, flags, *rest, **named):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *rest, **named)

    def unlisted(path="."):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing)
        patched.setattr(os, "listdir", unlisted)
        write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"
