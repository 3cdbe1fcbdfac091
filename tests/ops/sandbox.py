"""What a container's runtime does, with what the kernel offers: a read-only root, an unprivileged user, nothing else.

Namespaces are made by `unshare`, users and capabilities dropped by `setpriv`, both of util-linux; only root may.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

UID = 65532


def available() -> None:
    """Skip where a namespace cannot be made."""
    needed = ("unshare", "setpriv", "mount")
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in needed):
        pytest.skip("a read-only root needs root, and unshare, setpriv and mount of util-linux")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel or container makes no mount namespace")


def confined(command: Sequence[str], writable: Path, readable: Sequence[Path] = ()) -> list[str]:
    """The command as user `UID`, without capabilities, on a root it cannot write to but for `writable`.

    `/tmp` is empty in it. `readable` stay where they are, whoever may pass the folders above them.
    """
    kept = list(dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), *readable, writable]))
    stage = "/mnt"
    script = ["set -e", f"mount -t tmpfs -o mode=0755 tmpfs {stage}"]
    for number, path in enumerate(kept):
        script += [f"mkdir {stage}/{number}", f"mount --bind {shlex.quote(str(path))} {stage}/{number}"]
    hidden = sorted({Path("/tmp"), *(closed for path in kept for closed in _closed(path))})  # noqa: S108 - hidden
    script += [f"mount -t tmpfs -o mode=0755 tmpfs {shlex.quote(str(path))}" for path in hidden]
    for number, path in enumerate(kept):
        if any(path.is_relative_to(folder) for folder in hidden):
            place = shlex.quote(str(path))
            script += [f"mkdir -p {place}", f"mount --bind {stage}/{number} {place}"]
        else:
            script += [f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(path))}"]
    # Every mount is made read-only, then the one that is not.
    script += [
        "while read -r _ _ _ _ at _",
        'do mount -o remount,bind,ro "$at" 2>/dev/null || true',
        "done < /proc/self/mountinfo",
        f"mount -o remount,bind,rw {shlex.quote(str(writable))}",
        f"exec setpriv --reuid={UID} --regid={UID} --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "
        + shlex.join(command),
    ]
    return ["unshare", "--mount", "--propagation", "private", "bash", "-c", "\n".join(script)]


def _closed(path: Path) -> list[Path]:
    """The first folder on the way to a path that others may not pass, if there is one."""
    return [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001][:1]
