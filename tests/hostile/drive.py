"""Run the jail or its probes as somebody else, or on a machine that lacks a layer. A program: `python -IS drive.py`.

    drive.py PROBES --uid N --without LAYER,LAYER -- escape [OPTION...] WORKER | layers | become [OPTION...] WORKER

What lies under a home that only root may enter is loaded and opened before the identity changes.
"""

import ctypes
import errno
import importlib.util
import os
import struct
import sys

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 38, 22
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
FIRST_ARGUMENT = 16
CALLS = {"namespaces": (272, errno.EPERM), "landlock": (444, errno.ENOSYS)}  # unshare, landlock_create_ruleset
PRCTL = 157


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a change of identity hides /proc/self from its owner


def do_without(layers: set[str]) -> None:
    """Have the kernel refuse what the layers need, as a container's profile does."""
    program = [(LOAD, 0, 0, 0)]
    for layer in layers - {"seccomp"}:
        number, error = CALLS[layer]
        program += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | error)]
    if "seccomp" in layers:
        program += [
            (JUMP_IF_EQUAL, 0, 3, PRCTL),
            (LOAD, 0, 0, FIRST_ARGUMENT),
            (JUMP_IF_EQUAL, 0, 1, PR_SET_SECCOMP),
            (RETURN, 0, 0, ERRNO | errno.EINVAL),
        ]
    program.append((RETURN, 0, 0, ALLOW))
    raw = b"".join(struct.pack("<HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    fprog = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert libc.prctl(PR_SET_SECCOMP, 2, fprog, 0, 0) == 0, ctypes.get_errno()


def main(words: list[str]) -> int:
    place, _, uid, _, without, _, what, *rest = words
    spec = importlib.util.spec_from_file_location("probes", place)
    assert spec is not None
    assert spec.loader is not None
    probes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probes)
    jail = probes.load_jail()
    if rest:
        worker = os.open(rest.pop(), os.O_RDONLY)
        rest += ["--", f"/proc/self/fd/{worker}"]
    if int(uid):
        become(int(uid))
    if without != "-":
        do_without(set(without.split(",")))
    return jail.main([*rest, "subprocess"]) if what == "become" else probes.main([what, *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
