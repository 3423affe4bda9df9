"""Whatever a module leaves in its session directory, all of it goes, and nothing outside."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataproc.settings import Settings
from dataproc.storage.folders import Folders
from dataproc.storage.trash import Trash

SESSION = "5e551011-0000-4000-8000-000000000001"

PLAIN = """
import os, sys
from pathlib import Path
from dataproc.storage.folders import Folders
folders = Folders(Path(sys.argv[1]), None, False)
files = folders.make("abcdefgh").files
inner = files / "closed" / "closed too"
inner.mkdir(parents=True)
(inner / "file").write_text("")
for folder in (inner, inner.parent, files):
    folder.chmod(0)
folders.discard("abcdefgh")
folders.trash.settle()
assert os.listdir(folders.root / "trash") == [], os.listdir(folders.root / "trash")
assert os.listdir(folders.root / "sessions" / "ab") == []
"""


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    """A local storage."""
    made = Folders.of(Settings(), tmp_path / "storage")
    yield made
    made.trash.close()


def discard(folders: Folders) -> list[str]:
    """Discard the session, wait for its deletion; what is left."""
    folders.discard(SESSION)
    folders.trash.settle()
    return os.listdir(folders.root / "trash")


def test_links_are_not_followed(folders: Folders, tmp_path: Path) -> None:
    """What links and second names lead to outside is there afterwards, with its mode."""
    files = folders.make(SESSION).files
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "kept").chmod(0o400)
    (files / "folder").symlink_to(outside)
    (files / "file").symlink_to(tmp_path / "kept")
    os.link(tmp_path / "kept", files / "hard")
    assert discard(folders) == []
    assert (tmp_path / "kept").read_bytes() == b"kept"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (outside, tmp_path / "kept")]
    assert modes == [0o500, 0o400]


def test_closed_folders_go(folders: Folders) -> None:
    """Folders without any permission do not resist."""
    files = folders.make(SESSION).files
    inner = files / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "c").write_bytes(b"")
    for folder in (inner, inner.parent, files):
        folder.chmod(0)
    assert discard(folders) == []


def test_closed_folders_go_for_a_plain_user(tmp_path: Path) -> None:
    """The same where the server is no root, whom modes do not stop anyhow."""
    user = 64_998 if os.geteuid() == 0 else None
    place = tmp_path / "storage"
    place.mkdir()
    if user is not None:
        os.chown(place, user, user)
    script = (
        "import os\n" + (f"os.chdir({str(place)!r}); os.setgid({user}); os.setuid({user})\n" if user else "") + PLAIN
    )
    # the package is imported first: the plain user may not be able to read where it lies
    script = "import dataproc.storage.folders\n" + script
    where = "." if user is not None else str(place)
    done = subprocess.run([sys.executable, "-c", script, where], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nests_deeper_than_any_path_go(folders: Folders) -> None:
    """Fifteen hundred folders in one another, whose path no call would take."""
    fd = os.open(folders.make(SESSION).files, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert discard(folders) == []


def test_odd_names_and_kinds_go(folders: Folders) -> None:
    """Names that are no text, FIFOs and sockets are deleted like the rest."""
    files = os.fsencode(folders.make(SESSION).files)
    for name in (b"\xff\xfe", b"-rf", b"a\nb", b"*", b"x" * 255):
        os.mknod(files + b"/" + name)
    os.mkfifo(files + b"/fifo")
    os.mknod(files + b"/socket", stat.S_IFSOCK | 0o600)
    assert discard(folders) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")
def test_only_workers_reach_the_folders_of_a_session(folders: Folders) -> None:
    """What workers write to is theirs alone; everything above is closed to them, `incoming` too."""
    tree = folders.make(SESSION)
    uid = Settings().worker_uid
    for folder in (tree.files, tree.modules, tree.locks):
        found = folder.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (uid, 0o700)
    above = [tree.incoming, tree.files.parent, *list(tree.files.parent.parents)[:3]]
    for folder in above:
        found = folder.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)


def test_the_owner_is_put_right_after_a_crash(folders: Folders) -> None:
    """A folder that a crash left between its making and its giving away is given away by the next checkout."""
    if folders.worker_uid is None:
        pytest.skip("only root gives folders away")
    top = folders.tree(SESSION).files
    top.mkdir(parents=True)
    assert folders.make(SESSION).files.stat().st_uid == folders.worker_uid


def test_uploads_under_way_survive_the_start_of_a_neighbour(folders: Folders) -> None:
    """The sweep drops what nobody writes any more, and leaves what a living upload holds."""
    incoming = folders.make(SESSION).incoming
    (incoming / "abandoned").write_bytes(b"half")
    holding = "import fcntl,sys;f=open(sys.argv[1],'w');fcntl.flock(f,2);print('held',flush=True);sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holding, incoming / "living"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        folders.sweep()
        folders.trash.settle()
        assert os.listdir(incoming) == ["living"]
        process.kill()
    folders.sweep()
    folders.trash.settle()
    assert os.listdir(incoming) == []


def test_a_stop_does_not_wait_for_a_large_deletion(tmp_path: Path) -> None:
    """Closing ends the deletion under way between two files; the next start finishes it."""
    for number in range(200):
        (tmp_path / f"tree{number}" / "a" / "b").mkdir(parents=True)
    trash = Trash(tmp_path)
    gate = threading.Event()
    trash.later(lambda: gate.wait(30))
    trash.sweep()
    closing = threading.Thread(target=trash.close)
    closing.start()
    gate.set()
    closing.join(30)
    assert not closing.is_alive()
    again = Trash(tmp_path)
    again.sweep()
    again.settle()
    assert os.listdir(tmp_path) == []
    again.close()
