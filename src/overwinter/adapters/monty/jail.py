"""Start one interpreter worker inside a small jail of the operating system. Run as a program: `python -IS jail.py`.

Layers, outermost first, each kept even when the next one fails to hold: inherited files closed, resource limits, own
network, IPC and UTS namespace, an unprivileged identity without capabilities, death with its host, no new privileges,
landlock (which files), seccomp (which system calls). If namespaces, landlock or seccomp cannot be had it exits with 78
and starts nothing, unless that layer was accepted as missing by name.

The worker is opened before the identity is dropped and started by that open file, so it may lie under a closed home.

Known gaps: names, sizes and times of files stay visible through `stat` (landlock does not cover it); processor time and
the number of threads need a cgroup; the kernel is shared.

Standard library only, and of that only what loads fast: this file runs at the start of each worker.
"""

import ctypes
import errno
import os
import resource
import stat
import struct
import sys
from collections import namedtuple  # dataclasses, typing and argparse would double the start of each worker
from collections.abc import Callable, Iterable, Mapping

LAYERS = ("namespaces", "landlock", "seccomp")
NOBODY = 65534
EXIT_REFUSED = 78
"""EX_CONFIG of sysexits.h."""

READABLE = (
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
)
"""What the worker may read: its libraries, and the zone files that `os_policy` scans."""
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1")
"""What it may execute beside itself: the dynamic loader, which the kernel runs on its behalf."""

libc = ctypes.CDLL(None, use_errno=True)
libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
SIGINT, SIG_IGN = 2, 1
"""Ctrl-C goes to all of a terminal's foreground group: it is the command's to hear, and no crash of whoever computes for it."""


class Refused(Exception):
    """A layer of the jail cannot be had. Never start the worker anyway."""


# typing.NamedTuple, which could be typed, would load `typing`.
Jail = namedtuple("Jail", "worker parent memory_bytes_max files_max uid allow_missing")  # pyright: ignore[reportUntypedNamedTuple] - typing would slow each start
"""What the worker keeps; everything else is taken away.

worker: path of the program to become.
parent: pid of the host; the worker dies with it. 0: not checked.
memory_bytes_max: address space. A check against 229 KB of stubs peaks at 182 MB.
files_max: open files.
uid: taken when started as root.
allow_missing: layers whose absence the operator accepts.
"""
DEFAULTS = Jail("", 0, 2 << 30, 64, NOBODY, frozenset())


def enter(jail: Jail, worker_file: int) -> None:
    """Put this process into the jail; there is no way back.

    Args:
        jail: what is kept.
        worker_file: the worker, opened before: where its directory is closed to the jail's uid, its path is of no use.

    Raises:
        Refused: if a layer is missing and the jail does not allow that.
    """
    if {"namespaces", "seccomp"} <= jail.allow_missing:
        raise Refused("without both namespaces and seccomp the network would be open")
    close_inherited_files(worker_file)
    set_limits(jail)
    layer(jail, "namespaces", leave_namespaces)
    drop_identity(jail.uid)
    die_with(jail.parent)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    layer(jail, "landlock", lambda: lock_files(worker_file))
    layer(jail, "seccomp", lambda: lock_system_calls(worker_file))


def layer(jail: Jail, name: str, enter_layer: Callable[[], None]) -> None:
    """Enter one layer; its failure is final unless the operator accepted it."""
    try:
        enter_layer()
    except (OSError, Refused) as error:
        if name not in jail.allow_missing:
            raise Refused(f"{name}: {error}") from error


# --- Files and limits ------------------------------------------------------------------------------------------------


def close_inherited_files(kept: int) -> None:
    """Close all but standard input, output and error, which carry the worker's protocol, and the worker itself."""
    for first, end in ((3, kept), (kept + 1, 1 << 20)) if kept > 2 else ((3, 1 << 20),):
        os.closerange(first, end)
    os.chdir("/")
    os.umask(0o077)


def set_limits(jail: Jail) -> None:
    """Bound memory and open files; write no file; dump no core, which would hold customer data."""
    for kind, limit in ((resource.RLIMIT_AS, jail.memory_bytes_max), (resource.RLIMIT_NOFILE, jail.files_max)):
        _, hard = resource.getrlimit(kind)
        lowered = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (lowered, lowered))
    nothing = [resource.RLIMIT_CORE, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_MEMLOCK]
    if not stat.S_ISREG(os.fstat(2).st_mode):  # else a panic could not be written to a log file
        nothing.append(resource.RLIMIT_FSIZE)
    for kind in nothing:
        resource.setrlimit(kind, (0, 0))


# --- Namespaces and identity -----------------------------------------------------------------------------------------

CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522
SIGKILL = 9


def leave_namespaces() -> None:
    """Move to an empty network and to own IPC and UTS namespaces.

    A user who is not root first needs a user namespace, which some distributions and most containers forbid.
    """
    flags = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    if os.geteuid() != 0:
        flags |= CLONE_NEWUSER
    check(libc.unshare(flags), "unshare")


def drop_identity(uid: int) -> None:
    """Become `uid` if root, and give up every capability for good."""
    if uid == 0:
        raise Refused("identity: the jail's uid must not be 0")
    if os.geteuid() == 0:
        capability = 0
        while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    # The header names the layout and "this process"; the six words are effective, permitted, inheritable, twice.
    header = ctypes.create_string_buffer(struct.pack("<Ii", CAPABILITY_VERSION_3, 0))
    check(libc.capset(header, ctypes.create_string_buffer(24)), "capset")
    held = ctypes.create_string_buffer(24)
    check(libc.capget(header, held), "capget")
    if 0 in os.getresuid() or 0 in os.getresgid() or any(held.raw[:24]):
        raise Refused(f"identity: still uid {os.getresuid()}, capabilities {held.raw[:24].hex()}")


def die_with(parent: int) -> None:
    """Be killed when the host's thread that started this worker ends; a worker in a loop would outlive it for ever.

    Set after the identity, whose change clears it; checked afterwards, since the host may have died before.
    """
    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "pdeathsig")
    if parent and os.getppid() != parent:
        raise Refused(f"the host, process {parent}, has ended")


# --- Landlock: include/uapi/linux/landlock.h. The calls have no libc wrapper ------------------------------------------

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1
FS_EXECUTE, FS_READ_FILE, FS_READ_DIR = 1 << 0, 1 << 2, 1 << 3
FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many of the file rights, counted from bit 0, a kernel of that ABI can deny; later ABIs add none."""


def lock_files(worker_file: int) -> None:
    """Deny every file but the readable ones and the worker; deny TCP; deny signals and sockets to the outside."""
    abi = syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if abi < 1:
        raise Refused("this kernel has no landlock")
    rights_fs = (1 << FS_RIGHTS_BY_ABI[min(abi, 5)]) - 1
    rights_tcp = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0  # abstract UNIX sockets and signals
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = syscall(LANDLOCK_CREATE_RULESET, struct.pack("<QQQ", rights_fs, rights_tcp, scopes)[:size], size, 0)
    for path in READABLE:
        allow_path(ruleset, path, FS_READ_FILE, FS_READ_DIR)
    for path in LOADERS:
        allow_path(ruleset, path, FS_READ_FILE | FS_EXECUTE, 0)
    if worker_file > 2:
        allow_file(ruleset, worker_file, FS_READ_FILE | FS_EXECUTE)
    syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    must_fail("landlock", errno.EACCES, lambda: os.listdir("/"))


def allow_path(ruleset: int, path: str, rights: int, rights_if_directory: int) -> None:
    """Add one rule. A path that does not exist grants nothing, so it is skipped."""
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    allow_file(ruleset, file, rights | rights_if_directory if os.path.isdir(path) else rights)
    os.close(file)


def allow_file(ruleset: int, file: int, rights: int) -> None:
    """Add one rule for an open file or directory."""
    rule = struct.pack("<Qi", rights, file)  # packed in the kernel as well: 12 bytes
    syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)


# --- Seccomp: include/uapi/linux/{seccomp,filter,audit}.h; arch/x86/entry/syscalls/syscall_64.tbl ----------------------

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
RET_KILL_PROCESS, RET_ERRNO, RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_ARGUMENTS = 0, 4, 16
AUDIT_ARCH_X86_64 = 0xC000003E
CLONE_THREAD, CLONE_ANY_NAMESPACE = 0x00010000, 0x7E020080
PROT_WRITE, PROT_EXEC, PR_SET_NAME, WORD = 2, 4, 15, 0xFFFFFFFF
AT_EMPTY_PATH = 0x1000
O_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)

ALLOWED_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "writev": 20, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "gettimeofday": 96,
    "sigaltstack": 131, "arch_prctl": 158, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "newfstatat": 262, "ppoll": 271,
    "set_robust_list": 273, "getrandom": 318, "statx": 332, "rseq": 334,
}  # fmt: skip
"""What a worker of Monty 1.4.0 was seen to call (traced over runs, limits, checks, dumps, loads, zones, panics), and what
a C library falls back to. No socket, ioctl, fcntl, pipe, dup, fork, kill, ptrace, and nothing that changes a file."""
CLONE3_X86_64, PTRACE_X86_64, EXECVEAT_X86_64 = 435, 101, 322

# As with `Jail`: no `typing` here.
Argument = namedtuple("Argument", "index mask value high negate", defaults=(False, False))  # pyright: ignore[reportUntypedNamedTuple] - typing would slow each start
"""A condition on one argument of a call: its masked low (or high) word equals `value`, or must not."""


def conditional_x86_64(pid: int, worker_file: int) -> dict[int, tuple[Argument, ...]]:
    """Return the calls that are allowed only with harmless arguments.

    The worker is started by its open file, which is closed on the way: it can start nothing else by that call.
    """
    return {
        9: (Argument(2, PROT_WRITE | PROT_EXEC, PROT_WRITE | PROT_EXEC, negate=True),),  # mmap: never write + exec
        10: (Argument(2, PROT_EXEC, 0),),  # mprotect: nothing becomes executable
        56: (Argument(0, CLONE_THREAD | CLONE_ANY_NAMESPACE, CLONE_THREAD),),  # clone: threads, not processes
        157: (Argument(0, WORD, PR_SET_NAME),),  # prctl
        234: (Argument(0, WORD, pid),),  # tgkill: only itself, for abort()
        257: (Argument(2, O_WRITING, 0),),  # openat: to read
        302: (Argument(0, WORD, 0), Argument(2, WORD, 0), Argument(2, WORD, 0, high=True)),  # prlimit64: read own
        EXECVEAT_X86_64: (Argument(0, WORD, worker_file), Argument(4, WORD, AT_EMPTY_PATH)),
    }


def lock_system_calls(worker_file: int) -> None:
    """Answer EPERM to every call but the listed ones, and kill the process on a foreign call convention."""
    machine = os.uname().machine
    if machine != "x86_64" or sys.maxsize <= 2**32:
        raise Refused(f"no system call list for {machine}")
    program = filter_program(ALLOWED_X86_64.values(), conditional_x86_64(os.getpid(), worker_file))
    raw = b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    # struct sock_fprog: a count, six bytes of padding, a pointer.
    fprog = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer)))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0), "seccomp")
    must_fail("seccomp", errno.EPERM, lambda: syscall(PTRACE_X86_64, 1, 0, 0, 0))


def filter_program(
    allowed: Iterable[int], conditional: Mapping[int, tuple[Argument, ...]]
) -> list[tuple[int, int, int, int]]:
    """Return the BPF program as (operation, jump if true, jump if false, operand)."""
    program = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD, 0, 0, OFFSET_NUMBER),
    ]
    for number in sorted(allowed):
        program += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, RET_ALLOW)]
    # ENOSYS makes the C library fall back to clone, whose flags a filter can read.
    program += [(JUMP_IF_EQUAL, 0, 1, CLONE3_X86_64), (RETURN, 0, 0, RET_ERRNO | errno.ENOSYS)]
    for number, arguments in conditional.items():
        program += conditional_block(number, arguments)
    return [*program, (RETURN, 0, 0, RET_ERRNO | errno.EPERM)]


def conditional_block(number: int, arguments: tuple[Argument, ...]) -> list[tuple[int, int, int, int]]:
    """Allow `number` if all its conditions hold, deny it if not, else go on with the number loaded."""
    tests: list[tuple[int, int, int, int]] = []
    for position, argument in enumerate(arguments):
        offset = OFFSET_ARGUMENTS + 8 * argument.index + (4 if argument.high else 0)
        to_deny = 3 * (len(arguments) - position - 1) + 1  # over the other tests and the RET_ALLOW
        on_true, on_false = (to_deny, 0) if argument.negate else (0, to_deny)
        tests += [(LOAD, 0, 0, offset), (AND, 0, 0, argument.mask), (JUMP_IF_EQUAL, on_true, on_false, argument.value)]
    body = [*tests, (RETURN, 0, 0, RET_ALLOW), (RETURN, 0, 0, RET_ERRNO | errno.EPERM)]
    return [(JUMP_IF_EQUAL, 0, len(body), number), *body]


# --- Small things ----------------------------------------------------------------------------------------------------


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make a raw call with integers, bytes and None; a negative answer becomes an OSError."""
    raw = [
        ctypes.c_char_p(value) if value is None or isinstance(value, bytes) else ctypes.c_long(value)
        for value in arguments
    ]
    return check(libc.syscall(ctypes.c_long(number), *raw), f"system call {number}")


def check(answer: int, what: str) -> int:
    """Return a C answer, or raise the error that it stands for."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return answer


def must_fail(what: str, number: int, act: Callable[[], object]) -> None:
    """Prove that a lock holds: `act` must fail in exactly that way."""
    try:
        act()
    except OSError as error:
        if error.errno == number:
            return
        raise Refused(f"{what}: self-test failed with {error}") from error
    raise Refused(f"{what}: self-test was not stopped")


USAGE = "jail.py [--parent PID] [--memory-bytes-max N] [--files-max N] [--uid N] [--allow-missing LAYER] -- WORKER [WORD...]"


def parse(words: list[str]) -> tuple[Jail, list[str]]:
    """Return the jail and the worker's words."""
    at = words.index("--") if "--" in words else len(words)
    jail, options = DEFAULTS, iter(words[:at])
    for option in options:
        value = next(options, "")
        if option in ("--parent", "--memory-bytes-max", "--files-max", "--uid") and value.isdigit():
            jail = jail._replace(**{option[2:].replace("-", "_"): int(value)})
        elif option == "--allow-missing" and value in LAYERS:
            jail = jail._replace(allow_missing=jail.allow_missing | {value})
        else:
            raise Refused(f"cannot read {option} {value}\n{USAGE}")
    worker = words[at + 1 :]
    return jail._replace(worker=worker[0] if worker else ""), worker


def main(words: list[str]) -> int:
    """Enter the jail and become the worker."""
    try:
        jail, worker = parse(words)
        if not worker:
            raise Refused(f"name a worker after --\n{USAGE}")
        worker_file = os.open(jail.worker, os.O_RDONLY | os.O_CLOEXEC)
        libc.signal(SIGINT, SIG_IGN)
        enter(jail, worker_file)
        os.execve(worker_file, worker, {})
    except (OSError, Refused) as error:
        print(f"jail: refused: {error}", file=sys.stderr)
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
