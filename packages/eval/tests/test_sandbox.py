"""One attack, one test, each a real program; every attack is bounded, so that a failed protection harms nobody.

`place` is the sandbox with namespaces (as it is used) and without (what it falls back to).
"""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from headwater_eval import sandbox
from headwater_eval._contracts import errors
from headwater_eval._contracts.errors import UserError
from headwater_eval.sandbox.run import PROTECTIONS, PYTHON, PYTHON_OPTIONS, Limits, Result, Sandbox

WITH, WITHOUT = Sandbox(Limits()), Sandbox(Limits(), accept=PROTECTIONS, namespaces=False)
if WITH.missing:
    pytest.skip(f"this machine gives no whole sandbox: {WITH.missing}", allow_module_level=True)


@pytest.fixture(params=[WITH, WITHOUT], ids=["namespaces", "fallback"])
def place(request) -> Sandbox:
    return request.param


def run(place: Sandbox, program: str, **limits: int) -> Result:
    if limits:
        place = Sandbox(Limits(**limits), place.accept, namespaces=place.namespaces)
    return place.run([PYTHON, *PYTHON_OPTIONS, "program.py"], {"program.py": program})


def tried(*attempts: str) -> str:
    """A program that tries each statement and prints the name of what it raises, or `done`."""
    lines = ["import os, socket, ctypes, signal", "libc = ctypes.CDLL(None, use_errno=True)"]
    for attempt in attempts:
        lines += ["try:", f"    {attempt}", "    print('done')", "except BaseException as e:",
                  "    print(type(e).__name__)"]  # fmt: skip
    return "\n".join(lines)


def alive(marker: str) -> list[int]:
    """Processes of the whole machine whose command line holds the marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(marker: str, within: float = 30.0) -> bool:
    deadline = time.monotonic() + within
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(marker)


def test_a_program_gets_its_files_and_input_and_its_output_and_status_come_back(place) -> None:
    program = "import sys; print(input(), open('data/x.txt').read()); print('é', file=sys.stderr); sys.exit(7)"
    files = {"program.py": program, "data/x.txt": "text"}
    result = place.run([PYTHON, *PYTHON_OPTIONS, "-u", "program.py"], files, stdin="in\n")
    assert (result.exit, result.output, result.stopped, result.left_behind) == (7, "in text\né\n", None, 0)


def test_a_fork_bomb_meets_the_limit_of_processes_and_nothing_of_it_lives_on(place) -> None:
    marker = uuid.uuid4().hex
    bomb = f"""# at most 200, each asleep for 3 seconds at most
import os, time, sys
made = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(3); os._exit(0)
        made += 1
    except BlockingIOError:
        break
print(made)  # {marker}
"""
    command = [PYTHON, *PYTHON_OPTIONS, "-c", bomb]
    if place.missing.get("user"):
        pytest.skip("no limit of processes holds for root")
    limited = Sandbox(Limits(processes=12), place.accept, namespaces=place.namespaces)
    result = limited.run(command)
    assert 0 < int(result.output) < 12 and result.left_behind == int(result.output)
    assert not alive(marker)


def test_nothing_outlives_the_program_not_even_a_daemon(place) -> None:
    marker = uuid.uuid4().hex
    daemon = f"""
import os, time  # {marker}
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for end in (0, 1, 2): os.close(end)
        time.sleep(60)
    os._exit(0)
time.sleep(0.3)
print('left')
"""
    result = place.run([PYTHON, *PYTHON_OPTIONS, "-c", daemon])
    assert (result.output, result.left_behind) == ("left\n", 1) and not alive(marker)


def test_a_full_disk_is_the_programs_alone() -> None:
    writer = """
import os, errno
total, why = 0, 'none'
try:
    for name in range(16):  # 64 MB at most
        with open(str(name), 'wb', buffering=0) as f:
            for _ in range(4): total += f.write(bytes(1 << 20))
except OSError as e:
    why = errno.errorcode[e.errno]
print(total >> 20, why)
"""
    megabytes, why = run(WITH, writer, disk_mb=6).output.split()
    assert int(megabytes) <= 6 and why == "ENOSPC"


def test_one_file_meets_its_limit(place) -> None:
    result = run(place, "f = open('big', 'wb', buffering=0)\nfor _ in range(40): f.write(bytes(1 << 20))", disk_mb=8)
    assert result.exit == 1 and ("Errno 27" in result.output or "Errno 28" in result.output)  # EFBIG, ENOSPC


def test_many_small_files_meet_a_limit() -> None:
    result = run(WITH, "for i in range(3000): open(str(i), 'w').close()", files=200)
    assert "No space left" in result.output


def test_there_is_no_network(place) -> None:
    attempts = [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.create_connection(('127.0.0.1', 9), 1)",
        "socket.getaddrinfo('localhost', 80, socket.AF_INET)",
        "assert libc.socket(2, 2, 0) >= 0",
        "assert libc.syscall(425, 8, bytes(120)) >= 0",  # io_uring_setup
    ]
    assert "done" not in run(place, tried(*attempts)).output
    devices = run(WITH, "print([line.split(':')[0].strip() for line in open('/proc/net/dev')][2:])")
    assert devices.output == "['lo']\n"


def test_it_cannot_kill_its_parent_nor_a_stranger(place) -> None:
    with subprocess.Popen(["sleep", "30"]) as stranger:
        attempts = ["os.kill(os.getppid(), signal.SIGKILL)", f"os.kill({stranger.pid}, signal.SIGKILL)", "print('on')"]
        result = run(place, tried(*attempts))
        assert stranger.poll() is None
        stranger.kill()
    assert (result.exit, result.output.splitlines()[-2:]) == (0, ["on", "done"])
    assert "done" not in result.output.splitlines()[1]


def test_secrets_stay_secret(place, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("API_KEY", "hunter2")
    secret = tmp_path / "id_rsa"
    secret.write_text("hunter2")
    inherited = os.open(secret, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    home = str(Path.home())
    program = f"""
import os, glob
print(dict(os.environ))
for path in [{str(secret)!r}, '/etc/passwd', '/etc/shadow', '/proc/{os.getpid()}/environ', '/proc/1/environ',
             *glob.glob('/proc/[0-9]*/environ'), *glob.glob({home!r} + '/*'), *glob.glob({home!r} + '/.*'),
             *glob.glob('/home/*/*'), *glob.glob('/box/../../etc/*'), {str(Path(__file__).resolve())!r}]:
    try:
        print(path, len(open(path, 'rb').read()), b'hunter2' in open(path, 'rb').read())
    except OSError as e:
        print(type(e).__name__)
for number in range(3, 64):
    try:
        os.fstat(number); print('open', number)
    except OSError: pass
"""
    try:
        lines = run(place, program).output.splitlines()
    finally:
        os.close(inherited)
    assert "hunter2" not in lines[0] and "API_KEY" not in lines[0] and len(ast.literal_eval(lines[0])) == 5
    told = [line for line in lines[1:] if "True" in line or "open" in line]
    assert not told
    read = [line.split()[0] for line in lines[1:] if line.endswith("False")]
    assert all(path.startswith("/proc/") or path.endswith("/etc/ld.so.cache") for path in read), read


def test_a_program_that_sleeps_is_ended_in_time(place) -> None:
    started = time.monotonic()
    result = run(place, "import time; print('zzz', flush=True); time.sleep(60)", wall_seconds=1)
    assert result.out_of_time and result.output == "zzz\n" and time.monotonic() - started < 6


def test_a_program_that_ignores_signals_is_ended_in_time(place) -> None:
    program = """
import signal, time
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
"""
    assert run(place, program + "while True: time.sleep(1)", wall_seconds=1).out_of_time


def test_computing_is_not_waiting(place) -> None:
    """On a busy machine a program is ready to run for longer than its wall time; its CPU time is what counts then."""
    busy = "import time\nwhile time.process_time() < 1.2: pass"
    assert run(place, busy, wall_seconds=1).exit == 0


def test_a_program_that_computes_for_ever_meets_the_limit_of_cpu_time(place) -> None:
    result = run(place, "while True: pass", cpu_seconds=1)
    assert (result.signal, result.stopped) == (signal.SIGXCPU, None) and result.out_of_time


def test_a_program_that_prints_for_ever_fills_nothing(place) -> None:
    result = run(place, "while True: print('x' * 1000)", wall_seconds=1, output_bytes=5000)
    assert result.out_of_time and len(result.output) == 5000 < result.output_bytes


def test_memory_of_one_process_is_limited(place) -> None:
    assert "MemoryError" in run(place, "x = bytearray(300 << 20)", memory_mb=128).output


def test_memory_of_all_processes_together_is_limited(place) -> None:
    # five processes of 60 MB: each within the limit
    program = "import os, time\nfor _ in range(4):\n  if os.fork() == 0: break\nx = b'1' * (60 << 20); time.sleep(5)"
    assert run(place, program, memory_mb=128).stopped == "memory"


def test_it_writes_nowhere_but_in_its_folder(place, tmp_path) -> None:
    targets = ["/x", "/usr/x", "/etc/x", "/dev/x", "/usr/lib/x", f"{sys.base_prefix}/x", str(tmp_path / "x")]
    result = run(place, tried(*(f"open({target!r}, 'w')" for target in targets), "open('here', 'w')"))
    assert result.output.split() and result.output.split()[-1] == "done" and result.output.count("done") == 1


def test_it_gains_no_privileges(place) -> None:
    attempts = [
        "assert libc.unshare(0x10000000) == 0",  # CLONE_NEWUSER
        "assert libc.mount(b'none', b'.', b'tmpfs', 0, None) == 0",
        "assert libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0",  # clone(CLONE_NEWUSER | SIGCHLD)
        "assert libc.ptrace(16, os.getppid(), 0, 0) == 0",
        "os.chroot('.')",
        "assert libc.syscall(319, b'm', 0) >= 0",  # memfd_create: memory that no limit counts
        "assert libc.shmget(0, 1 << 20, 0o1600) >= 0",
        "os.mknod('device', 0o60666, os.makedev(254, 0))",
    ]
    if os.uname().machine == "x86_64":
        assert "done" not in run(place, tried(*attempts)).output
    status = run(WITH, "import os; print(os.getuid(), open('/proc/self/status').read())").output
    assert status.startswith("65534 ") and "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status


def test_it_dies_with_its_caller(place, tmp_path) -> None:
    marker = uuid.uuid4().hex
    caller = f"""
from headwater_eval.sandbox.run import *
Sandbox(Limits(wall_seconds=60), accept=PROTECTIONS, namespaces={place.namespaces}).run(
    [PYTHON, *PYTHON_OPTIONS, "-c", "import time; time.sleep(50)  # {marker}"])
"""
    with subprocess.Popen([sys.executable, "-c", caller], env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        deadline = time.monotonic() + 20
        while sum(pid != process.pid for pid in alive(marker)) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(alive(marker)) >= 2
        process.kill()
    assert gone(marker)


def test_nothing_is_left_of_its_folder(place) -> None:
    result = run(place, "import os; os.makedirs('a/b'); open('a/b/c', 'w').close(); print(os.getcwd())")
    assert result.exit == 0 and not Path(result.output.strip()).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_user_gets_the_same_protections() -> None:
    system = shutil.which("python3", path="/usr/bin")
    ask = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    if system is None or subprocess.run([system, "-c", ask], check=False).returncode:
        pytest.skip("no interpreter that an ordinary user may run")
    program = '''
import sys; sys.path.insert(0, sys.argv[1])
from headwater_eval.sandbox.run import *
box = Sandbox(Limits(processes=5))
bomb = """
import os, time
try:
    for _ in range(20):
        if os.fork() == 0: time.sleep(2); os._exit(0)
except BlockingIOError:
    print(os.getuid(), os.listdir('.'))
"""
print(box.missing, box.run([PYTHON, *PYTHON_OPTIONS, "-c", bomb]).output)
'''
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "headwater_eval"
        shutil.copytree(Path(sandbox.__file__).parent, package / "sandbox")
        (package / "_contracts").mkdir()
        shutil.copy(Path(errors.__file__), package / "_contracts/errors.py")
        os.chmod(folder, 0o755)
        told = subprocess.run([system, "-c", program, folder], user=1000, group=1000, extra_groups=[], env={}, cwd="/",
                              capture_output=True, text=True, check=False)  # fmt: skip
    assert told.stdout == "{} 65534 []\n\n", told.stderr


def test_a_missing_protection_is_refused_by_name_unless_accepted() -> None:
    with pytest.raises(UserError, match=r"cannot protect disk, processes.*code\.accept"):
        Sandbox(namespaces=False).run([PYTHON, "-c", "pass"])
    with pytest.raises(UserError, match="cannot protect processes"):
        Sandbox(namespaces=False, accept=("disk", "user")).run([PYTHON, "-c", "pass"])


def test_a_program_that_is_not_there_is_one_line(place) -> None:
    with pytest.raises(UserError, match=r"could not start /usr/bin/no-such: .*No such file"):
        place.run(["/usr/bin/no-such"])
