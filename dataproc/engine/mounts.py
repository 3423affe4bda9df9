"""The mount trees of zygotes and workers: what a module can see of the machine.

The keeper opens what is shown as detached mounts (`detach`), so that neither the path above it nor its owner matters;
the process that becomes the zygote puts them on an empty tmpfs (`enter_root`); a worker then gets places of its own
(`worker_root`) and the folders of its session.
Facts: open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2), mount_namespaces(7).
"""

from __future__ import annotations

import os

from dataproc.engine import syscalls as sys_

# Places of a worker, and of nothing else. All but /proc are write places.
SESSION, APPLICATION, WORK, LOCKS, MODULE = "/session", "/application", "/work", "/locks", "/module"
XDATA = {name: f"/xdata/{name}" for name in ("module-session", "runs", "given")}  # of script modules
DEVICES = ("null", "zero", "full", "random", "urandom")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def detach(path: str, *, read_only: bool, device: bool = False) -> int:
    """A detached mount of the folder or file `path`, with all below it; its descriptor."""
    flags = sys_.OPEN_TREE_CLONE | sys_.OPEN_TREE_CLOEXEC | sys_.AT_RECURSIVE | sys_.AT_SYMLINK_NOFOLLOW
    tree = sys_.open_tree(path, flags)
    lasting = sys_.MOUNT_ATTR_NOSUID | (0 if device else sys_.MOUNT_ATTR_NODEV)
    sys_.mount_setattr(tree, flags=sys_.AT_RECURSIVE, add=lasting | (sys_.MOUNT_ATTR_RDONLY if read_only else 0))
    return tree


def detach_all(binds: list[list[str]]) -> list[tuple[int, str, bool]]:
    """Detached read-only mounts of (source, target) pairs: descriptor, target, whether it is a folder."""
    found = [(detach(source, read_only=True), target, os.path.isdir(source)) for source, target in binds]
    devices = [(detach(f"/dev/{name}", read_only=False, device=True), f"/dev/{name}", False) for name in DEVICES]
    return found + devices


def enter_root(mounts: list[tuple[int, str, bool]], links: list[list[str]], texts: dict[str, str], tmp: int) -> None:
    """Make a root of nothing but these mounts, links and small files, and make it the process's root.

    The caller is alone in a new mount namespace that it has CAP_SYS_ADMIN over. `tmp`: bytes of each private tmpfs.
    """
    root = "/tmp"  # noqa: S108 - a place that exists everywhere; what is mounted on it is ours alone
    sys_.mount("", "/", "", sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("tmpfs", root, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, "mode=755,size=16m")
    for place in (SESSION, APPLICATION, WORK, LOCKS, MODULE, *XDATA.values(), "/tmp", "/proc", "/dev/shm", "/.old"):  # noqa: S108
        os.makedirs(root + place, exist_ok=True)
    for name, value in DEVICE_LINKS.items():
        os.symlink(f"/proc/self/fd{value}", f"{root}/dev/{name}")
    for descriptor, target, folder in sorted(mounts, key=lambda m: m[1]):
        _place(root + target, folder)
        sys_.move_mount(descriptor, root + target)
        os.close(descriptor)
    for target, value in links:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        if not os.path.lexists(root + target):
            os.symlink(value, root + target)
    for target, text in texts.items():
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        with open(root + target, "w") as file:
            file.write(text)
    # proc has to be mounted while the old one can still be seen: the kernel refuses it otherwise.
    sys_.mount("proc", root + "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    private_tmpfs(root, tmp, (WORK, "/tmp", "/dev/shm"))  # noqa: S108
    sys_.pivot_root(root, root + "/.old")
    os.chdir("/")
    sys_.umount("/.old")
    os.rmdir("/.old")
    sys_.mount_setattr(sys_.AT_FDCWD, "/", add=sys_.MOUNT_ATTR_RDONLY)


def private_tmpfs(root: str, size: int, places: tuple[str, ...]) -> None:
    """A fresh, bounded tmpfs at each place."""
    for place in places:
        mode = "700" if place == WORK else "1777"
        sys_.mount(
            "tmpfs", root + place, "tmpfs", sys_.MS_NOSUID | sys_.MS_NODEV, f"mode={mode},size={size},nr_inodes=65536"
        )


def _place(target: str, folder: bool) -> None:
    os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
    if not folder and not os.path.lexists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def worker_root(tmp: int) -> None:
    """Turn a copy of the zygote's mounts into a worker's: /proc, /tmp and /dev/shm of its own."""
    sys_.mount("", "/", "", sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("proc", "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
    private_tmpfs("", tmp, ("/tmp", "/dev/shm"))  # noqa: S108
