"""Try to get out of the jail, or say which of its layers this machine has. Run as a program, never imported.

    python -IS probes.py escape [OPTION...] -- WORKER    enter the jail as WORKER would, then try every forbidden act
    python -IS probes.py layers                          try each layer by itself

The last line is one JSON object: act to whether it was denied, or layer to why it is missing ("" if it is there).

The acts run under the very locks that a worker runs under. Their arguments are chosen so that what gets past the jail
does no harm: it fails later, with EFAULT, EINVAL or ENOENT, and that counts as an escape.
"""

import ctypes
import errno
import importlib.util
import json
import os
import resource
import sys
from collections.abc import Callable
from types import ModuleType

DENIALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
SCRATCH = ctypes.create_string_buffer(64)
NEVER_FILE = 1_000_000


def load_jail() -> ModuleType:
    """Return `jail.py`, which lies beside this file; an isolated interpreter finds no packages."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jail.py")  # noqa: PTH100, PTH118, PTH120 - pathlib loads slowly
    spec = importlib.util.spec_from_file_location("jail", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- Escapes -----------------------------------------------------------------------------------------------------------


def escape(jail: ModuleType, words: list[str]) -> dict[str, bool]:
    """Enter the jail as a worker does, up to its start, and return for each act whether it was denied."""
    host = os.getppid()  # asked before the jail, which hides it
    settings, _ = jail.parse(words)
    worker_file = os.open(settings.worker, os.O_RDONLY | os.O_CLOEXEC)
    jail.enter(settings, worker_file)
    os.close(worker_file)  # as its start would
    acts = {**act_on_files(jail), **act_on_others(jail, host), **act_on_kernel(jail)}
    denied = {name: is_denied(act) for name, act in acts.items()}
    starts = start_programs(jail, worker_file)
    # A start that succeeds ends this program: what is printed now would then be the last line.
    print(json.dumps({**denied, **dict.fromkeys(starts, False)}), flush=True)  # noqa: T201 - the answer
    return {**denied, **{name: is_denied(act) for name, act in starts.items()}}


def is_denied(act: Callable[[], object]) -> bool:
    """Try one act. Only a refusal counts; any other failure means that the kernel had begun to obey."""
    try:
        act()
    except OSError as error:
        return error.errno in DENIALS
    except (MemoryError, ValueError):  # RLIMIT_AS; raising a hard limit
        return True
    return False


def act_on_files(jail: ModuleType) -> dict[str, Callable[[], object]]:
    """Return forbidden acts on files and sockets."""

    def raw(number: int, *arguments: int | bytes | None) -> Callable[[], object]:
        return lambda: jail.syscall(number, *arguments)

    def opened(path: str, flags: int) -> Callable[[], object]:
        return lambda: os.open(path, flags, 0o600)

    return {
        "read /etc/passwd": opened("/etc/passwd", os.O_RDONLY),
        "read /proc/self/environ": opened("/proc/self/environ", os.O_RDONLY),
        "read /proc/self/mem": opened("/proc/self/mem", os.O_RDWR),
        "list /": lambda: os.listdir("/"),  # noqa: PTH208 - the system call itself
        "list /proc": lambda: os.listdir("/proc"),  # noqa: PTH208 - the same
        "write /tmp": opened("/tmp/jail-probe", os.O_WRONLY | os.O_CREAT),  # noqa: S108 - it must fail
        "write /dev/shm": opened("/dev/shm/jail-probe", os.O_WRONLY | os.O_CREAT),  # noqa: S108 - the same
        "make a directory": lambda: os.mkdir("/tmp/jail-probe.d"),  # noqa: PTH102, S108 - the same
        "rename": lambda: os.rename("/tmp/jail-probe.absent", "/tmp/jail-probe"),  # noqa: PTH104, S108 - the same
        "change a mode": lambda: os.chmod("/tmp/jail-probe.absent", 0o600),  # noqa: PTH101, S108 - the same
        "socket inet": raw(41, 2, 1, 0),
        "socket unix": raw(41, 1, 1, 0),
        "socket netlink": raw(41, 16, 3, 0),
        "socketpair": raw(53, 1, 1, 0, None),
        "open by handle": raw(304, -100, None, 0),
        "memfd": raw(319, b"x", 0),
        "shared memory": raw(29, 1, 4096, 0),
        "terminal input": raw(16, NEVER_FILE, 0x5412, None),
    }


def start_programs(jail: ModuleType, worker_file: int) -> dict[str, Callable[[], object]]:
    """Return forbidden starts of another program in place of this one."""
    program = b"/bin/true"
    return {
        "exec": lambda: os.execve(program, [program], {}),  # noqa: S606 - it must fail
        "execveat": lambda: jail.syscall(322, -100, program, None, None, 0),
        "execveat as the worker was": lambda: jail.syscall(322, worker_file, program, None, None, jail.AT_EMPTY_PATH),
    }


def act_on_others(jail: ModuleType, host: int) -> dict[str, Callable[[], object]]:
    """Return forbidden acts on processes and identities."""
    scratch = ctypes.addressof(SCRATCH)

    def raw(number: int, *arguments: int | bytes | None) -> Callable[[], object]:
        return lambda: jail.syscall(number, *arguments)

    def fork(number: int, *arguments: int | bytes | None) -> Callable[[], object]:
        return lambda: os._exit(0) if jail.syscall(number, *arguments) == 0 else None

    return {
        "fork": fork(57),
        "vfork by clone": fork(56, 17, 0, 0, 0, 0),
        "fork by clone3": raw(435, None, 0),
        "kill host": raw(62, host, 0),
        "kill all": raw(62, -1, 0),
        "tgkill host": raw(234, host, host, 0),
        "pidfd of host": raw(434, host, 0),
        "ptrace host": raw(101, 3, host, 0, 0),
        "read host memory": raw(310, host, None, 1, None, 1, 0),
        "read host limits": raw(302, host, 7, None, scratch),
        "host's number": raw(110),
        "priority of host": raw(141, 0, host, 0),
        "raise own limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
        "3 GiB of memory": lambda: bytearray(3 << 30),
        "setuid 0": raw(105, 0),
        "setresuid 0": raw(117, 0, 0, 0),
        "set capabilities": raw(126, None, None),
        "outlive the host": raw(157, jail.PR_SET_PDEATHSIG, 0, 0, 0, 0),
        "personality": raw(135, 0xFFFFFFFF),
    }


def act_on_kernel(jail: ModuleType) -> dict[str, Callable[[], object]]:
    """Return forbidden acts on namespaces, mounts, memory protection and the kernel itself."""

    def raw(number: int, *arguments: int | bytes | None) -> Callable[[], object]:
        return lambda: jail.syscall(number, *arguments)

    return {
        "unshare user": raw(272, jail.CLONE_NEWUSER),
        "join a namespace": raw(308, 0, 0),
        "mount": raw(165, None, None, None, 0, None),
        "new mount interface": raw(430, b"tmpfs", 0),
        "chroot": raw(161, None),
        "pivot_root": raw(155, None, None),
        "bpf": raw(321, 0, None, 0),
        "io_uring": raw(425, 1, None),
        "perf_event_open": raw(298, None, 0, -1, -1, 0),
        "userfaultfd": raw(323, 0),
        "keyring": raw(250, 0, -3, 0),
        "write and execute memory": raw(9, 0, 4096, jail.PROT_WRITE | jail.PROT_EXEC | 1, 0x22, -1, 0),
        "make memory executable": raw(10, 0, 4096, jail.PROT_EXEC),
        "security of own process": raw(157, 4, 1, 0, 0, 0),
        "second seccomp": raw(317, 1, 0, None),
        "load a module": raw(175, None, 0, None),
        "kexec": raw(246, 0, 99, None, 0),
        "set the clock": raw(227, 0, None),
        "system log": raw(103, 3, None, 0),
        "call by the x32 convention": raw(0x40000000 + 39),
    }


# --- Layers --------------------------------------------------------------------------------------------------------------


def layers(jail: ModuleType) -> dict[str, str]:
    """Return for each layer why it cannot be had; "" if it can. Each is tried in a process of its own."""

    def landlock() -> None:
        jail.check(jail.libc.prctl(jail.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        jail.lock_files(-1)

    def seccomp() -> None:
        jail.check(jail.libc.prctl(jail.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        jail.lock_system_calls(0)

    tries = {"namespaces": jail.leave_namespaces, "landlock": landlock, "seccomp": seccomp}
    return {name: reason_missing(jail, enter) for name, enter in tries.items()}


def reason_missing(jail: ModuleType, enter: Callable[[], None]) -> str:
    """Enter one layer in a child and return what it says; the child's lock does not come back with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter()
        except (OSError, jail.Refused) as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    reason = b""
    while chunk := os.read(reader, 4096):
        reason += chunk
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return reason.decode() or ("" if status == 0 else f"the attempt ended with status {status}")


def main(words: list[str]) -> int:
    """Print what was found; exit 0 if every act was denied, or every layer is there."""
    jail = load_jail()
    what, rest = words[0], words[1:]
    try:
        if what == "layers":
            missing = layers(jail)
            print(json.dumps(missing))  # noqa: T201 - the answer
            return 1 if any(missing.values()) else 0
        denied = escape(jail, rest)
    except (OSError, jail.Refused) as error:
        print(f"jail: refused: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return int(jail.EXIT_REFUSED)
    print(json.dumps(denied))  # noqa: T201 - the answer
    return 0 if all(denied.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
