"""Whether other users can change what is in a folder."""

import os
import stat
from pathlib import Path


def writable_by_others(folder: Path) -> Path | None:
    """The folder, or the folder above it, through which another user can change its content; None
    if there is none. A folder that does not exist yet has only the ones above it.

    A folder is safe if it belongs to this user or to root and if nobody else may write to it. Above
    it, folders like /tmp are safe too, in which nobody may move what is another's. A group counts
    as others, unless it is root's or of the same name as the user, as groups of one user are.
    Access control lists are not read.
    """
    given = Path(os.path.abspath(folder))
    real = given.resolve()
    for place in (real, given, *real.parents, *given.parents):
        try:
            status = os.lstat(place)
        except OSError:  # it does not exist
            continue
        if stat.S_ISLNK(status.st_mode):  # its target is among the places, and so is its folder
            continue
        if status.st_uid not in (0, os.geteuid()):
            return place
        kept_apart = status.st_mode & stat.S_ISVTX and place not in (real, given)
        group = status.st_mode & stat.S_IWGRP and not _own_group(status.st_gid)
        if (group or status.st_mode & stat.S_IWOTH) and not kept_apart:
            return place
    return None


def _own_group(number: int) -> bool:
    """Whether a group has no members besides this user and root."""
    import grp
    import pwd

    if number == 0:
        return True
    try:
        group, name = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name, "root"}


def permissions(place: Path) -> str:
    """The permissions of a folder as `ls -l` shows them, and its owner's number."""
    status = os.lstat(place)
    return f"{stat.filemode(status.st_mode)}, owner {status.st_uid}"
