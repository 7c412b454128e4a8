#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""memslot run, doctor, trace and engines, and the shape of libmemslot-preload.so.

usage: preload_command.py SOURCE_ROOT MEMSLOT PRELOAD CALLS     (TAP on standard output)
"""
import contextlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import tap

source, memslot, preload, calls = None, None, None, None


def status(*command, **more):
    return subprocess.run([memslot, *command], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=120,
                          check=False, **more).returncode


def stats_of(*command, **more):
    """memslot COMMAND --stats=json:FILE: (exit status, statistics)."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "stats.json"
        got = status(command[0], f"--stats=json:{path}", *command[1:], **more)
        return got, json.loads(path.read_text())


def lives(*options):
    return (memslot, "engines", "--one", *options)


def expect(*pairs):
    return [f"{what}: {got}, expected {wanted}" for what, got, wanted in pairs if got != wanted]


# --- the parent ---

def the_exit_status_is_the_programs():
    return expect(
        ("exit 0", status("run", "--", "true"), 0),
        ("exit 7", status("run", "--", "sh", "-c", "exit 7"), 7),
        ("killed", status("run", "--", "sh", "-c", "kill -9 $$"), 128 + 9),
        ("segv", status("run", "--", "sh", "-c", "ulimit -c 0; kill -SEGV $$"), 128 + 11),
        ("not there", status("run", "--", "/no/such/program"), 127),
        ("no program", status("run", "--", "/dev/null"), 126),
        ("nothing", status("run"), 125),
        ("bad option", status("run", "--keep=lots", "--", "true"), 125),
        ("unknown option", status("trace", "--no-such", "--", "true"), 125),
        ("too many slots", status("run", "--slots=8193", "--", "true"), 125),
        ("no file", status("run", "--stats=json:", "--", "true"), 125))


def what_cannot_be_run_is_told_once():
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "script"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        problems = []
        for program, wanted, text in ((script, 126, "its interpreter is not there"),
                                      ("/no/such", 127, "No such file")):
            got, output = tap.command([memslot, "run", "--stats", "--", program])
            lines = output.splitlines()
            problems += expect((f"{program}", got, wanted), ("lines", len(lines), 1),
                               ("told", text in lines[0], True))
        return problems


def a_file_that_cannot_be_written_is_told_first():
    got, output = tap.command([memslot, "run", "--stats=json:/no/such/file", "--", "echo", "ran"])
    return expect(("status", got, 125), ("ran", "ran" in output, False))


def statistics_are_for_people_and_machines_at_once():
    got = subprocess.run([memslot, "run", "--stats", "--stats=json:-", "--",
                          *lives("--engine=wasm2c", "--pages=64")], capture_output=True, text=True,
                         check=True, timeout=120)
    stats = json.loads(got.stdout[got.stdout.index("{"):])
    _, nothing = stats_of("run", "--keep=0", "--", *lives("--engine=wasm2c", "--pages=64"))
    return expect(("hits", stats["hits"], 1999), ("mode", stats["mode"], "strict"),
                  ("status", stats["exit_status"], 0), ("estimate", isinstance(stats["saved_ns"], float), True),
                  ("verdict", "% of 2000 reservations came from slots" in got.stderr, True),
                  ("nothing stays", nothing["pages_lent"], 0))


@contextlib.contextmanager
def running(program, **more):
    process = subprocess.Popen([memslot, "run", "--", sys.executable, "-u", "-c", program],
                               stdout=subprocess.PIPE, text=True, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def signals_are_sent_on():
    program = ("import signal, sys\n"
               "signal.signal(signal.SIGUSR1, lambda *_: print('usr1'))\n"
               "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
               "print('ready')\n"
               "while True: signal.pause()\n")
    with running(program) as process:
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGUSR1)
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        return expect(("output", lines, ["ready\n", "usr1\n"]), ("status", process.wait(30), 5))


def what_the_program_sends_its_parent_stays_there():
    program = ("import os, signal, time\n"
               "os.kill(os.getppid(), signal.SIGUSR1)\n"
               "time.sleep(0.5)\n")
    return expect(("status", status("run", "--", sys.executable, "-c", program), 0))


def an_ignored_sigchld_stays_ignored():
    program = "import signal, sys; sys.exit(signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)"
    command = ("run", "--", sys.executable, "-c", program)

    def ignore():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return expect(("ignored", status(*command, preexec_fn=ignore), 1),
                  ("not ignored", status(*command), 0))


def state(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def it_stops_and_continues_with_the_program():
    program = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('on')"
    with running(program) as process:
        for _ in range(600):
            if stopped := state(process.pid) == "T":
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGCONT)
        return expect(("stopped", stopped, True), ("output", process.stdout.readline(), "on\n"),
                      ("status", process.wait(30), 0))


def the_terminal_reaches_the_program_once():
    program = ("import signal, time\n"
               "seen = []\n"
               "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
               "print('ready', flush=True)\n"
               "while not seen: time.sleep(0.05)\n"
               "time.sleep(0.5)\n"
               "print('seen', len(seen), open('/dev/tty').isatty(), flush=True)\n")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(memslot, [memslot, "run", "--", sys.executable, "-c", program])
    text = b""
    with contextlib.suppress(OSError):  # the end
        while True:
            text += os.read(terminal, 1000)
            if b"ready" in text and b"sent" not in text:
                os.write(terminal, b"\x03")
                text += b"sent"
    return expect(("output", b"seen 1 True" in text, True),
                  ("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0))


def it_counts_however_the_program_ends():
    _, killed = stats_of("run", "--", "sh", "-c", f"{' '.join(lives('--engine=wasm2c'))}; kill -9 $$")
    crash = "import ctypes, mmap; ctypes.string_at(1)"
    got, crashed = stats_of("run", "--", sys.executable, "-c", crash)
    return expect(("hits", killed["hits"], 1999), ("processes", killed["processes"] >= 2, True),
                  ("crash", got, 128 + 11), ("counted", crashed["processes"], 1))


def children_may_be_left_out():
    line = f"echo ${{LD_PRELOAD}}${{MEMSLOT_PRELOAD}} >&3; {' '.join(lives('--engine=wasm2c'))}"
    with tempfile.TemporaryFile("w+") as file:
        _, without = stats_of("run", "--children=no", "--", "bash", "-c",
                              line.replace(">&3", f">&{file.fileno()}"), pass_fds=[file.fileno()])
        file.seek(0)
        return expect(("environment", file.read(), "\n"), ("requests", without["requests"], 0))


def budgets_hold():
    many = lives("--engine=wasm2c", "--alive=64", "--pages=64", "--lives=500")
    _, small = stats_of("run", "--budget=1M", "--", *many)
    _, few = stats_of("run", "--slots=3", "--", *many)
    _, lean = stats_of("run", "--keep=16K", "--", *many)
    _, none = stats_of("run", "--slots=0", "--", *many)
    problems = expect(("--slots=0", (none["hits"], none["left"]["surplus"], none["bytes_restored"]),
                       (0, 500, 0)))
    if not 0 < small["peak_bytes"] <= (1 << 20) + 64 * 4096:
        problems.append(f"--budget: held {small['peak_bytes']}")
    if few["left"]["surplus"] < 50 or few["hits"] == 0:
        problems.append(f"--slots: {few['left']}, {few['hits']} hits")
    if not 0 < lean["peak_bytes"] <= 64 * 16384 or lean["bytes_dropped"] == 0:
        problems.append(f"--keep: held {lean['peak_bytes']}, dropped {lean['bytes_dropped']}")
    _, large = stats_of("run", "--min=16G", "--", *many)
    return problems + expect(("--min", large["requests"], 0))


def who_writes_little_is_left_alone_until_it_writes_more():
    program = ("import ctypes, sys\n"
               "libc = ctypes.CDLL(None)\n"
               "libc.mmap.restype = ctypes.c_void_p\n"
               "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n"
               "libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n"
               "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
               "for lives, pages in ((1000, 1), (int(sys.argv[1]), 64)):\n"
               "    for _ in range(lives):\n"
               "        memory = libc.mmap(None, 1 << 30, 0, 0x4022, -1, 0)\n"
               "        libc.mprotect(memory, 1 << 20, 3)\n"
               "        assert ctypes.string_at(memory, pages << 12) == bytes(pages << 12)\n"
               "        ctypes.memset(memory, 7, pages << 12)\n"
               "        libc.munmap(memory, 1 << 30)\n")
    (got, little), (then, more), (lazily, trusted) = (
        stats_of("run", *way, "--", sys.executable, "-c", program, lives)
        for way, lives in (([], "0"), ([], "1000"), (["--trust-engine"], "0")))
    if little["off"] or trusted["off"]:
        raise tap.Skip("the kernel lacks something")
    return expect(("status", (got, then, lazily), (0, 0, 0)), ("all", little["requests"], 1000),
                  ("little", little["hits"] < 100 and little["left"]["few_pages"] > 900, True),
                  ("more", more["hits"] > 800, True),
                  ("trusted", (trusted["hits"], trusted["left"]["few_pages"]), (999, 0)))


def who_never_unmaps_whole_is_left_alone():
    got, stats = stats_of("run", "--", *lives("--engine=wasm2c-1.0.32"))
    return expect(("status", got, 0), ("requests", stats["requests"], 2000),
                  ("hits", stats["hits"], 0), ("taken", stats["misses_empty"] < 200, True),
                  ("left", stats["left"]["partial_unmap"], 2000))


def it_stands_aside_where_it_must():
    limited = ["prlimit", f"--as={1 << 38}"]
    if not shutil.which("prlimit"):
        raise tap.Skip("no prlimit")
    _, stats = stats_of("run", "--", *limited, *lives("--engine=deno"))
    return expect(("off", stats["off"], ["rlimit_as"]), ("hits", stats["hits"], 0))


def trusting_needs_a_kernel_that_tells():
    environment = {**os.environ, "MEMSLOT_DISABLE": "procmap_query"}
    _, stats = stats_of("run", "--trust-engine", "--", *lives("--engine=wasm2c"), env=environment)
    return expect(("off", stats["off"], ["not_lazy"]), ("mode", stats["mode"], "strict"),
                  ("hits", stats["hits"], 1999))


# --- engines ---

def engine_names():
    text = (source / "tools" / "engines_shape.c").read_text()
    return re.findall(r'\.name = "([^"]+)"', text)


def engine(name):
    checked = (memslot, "engines", "--check", f"--engine={name}", "--lives=400", "--alive=5",
               "--threads=2")
    problems = expect(("plainly", status(*checked[1:]), 0))
    for way in ([], ["--trust-engine"], ["--thp=keep"]):
        got, stats = stats_of("run", *way, "--", *checked)
        problems += expect((f"{way}", got, 0))
        # What leaks is never whole again; nor is what grows past the largest that fits.
        if stats["hits"] < (0 if name == "wasm2c-1.0.32" else 700):
            problems.append(f"{way}: {stats}")
    return problems


# --- doctor and trace ---

def doctor(program, **more):
    return tap.command([memslot, "doctor", "--", program], **more)


def the_doctor_knows_what_will_not_work():
    compiler = shutil.which("cc") or shutil.which("gcc")
    with tempfile.TemporaryDirectory() as folder:
        problems = []
        raised = pathlib.Path(folder) / "raised"
        shutil.copy(calls, raised)
        raised.chmod(0o4755)
        script = pathlib.Path(folder) / "script"
        script.write_text(f"#!{calls}\n")
        script.chmod(0o755)
        cases = [(calls, 0, "can work"), (raised, 1, "setuid"), ("/no/such", 1, "cannot run"),
                 (script, 0, f"is a script, run by {calls}"), (folder, 1, "Is a directory")]
        (pathlib.Path(folder) / "static.c").write_text("int main(void) { return 0; }")
        linked, _ = tap.command([compiler, "-static", "static.c", "-o", "static"], cwd=folder)
        if linked == 0:
            cases.append((f"{folder}/static", 1, "statically"))
        for program, wanted, text in cases:
            got, output = doctor(program)
            if got != wanted or text not in output:
                problems += [f"{program}: {got}", *output.splitlines()]
    return problems


def damaged(folder, field, value):
    """The program with one field of the section headers of its dynamic names changed."""
    data = bytearray(pathlib.Path(calls).read_bytes())
    table, = struct.unpack_from("<Q", data, 40)
    count, = struct.unpack_from("<H", data, 60)
    headers = [table + 64 * number for number in range(count)]
    names = next(at for at in headers if struct.unpack_from("<I", data, at + 4)[0] == 11)
    if field == "strings":
        struct.pack_into("<Q", data, headers[struct.unpack_from("<I", data, names + 40)[0]] + 24, value)
    else:
        struct.pack_into("<Q", data, names + 32, value)
    path = pathlib.Path(folder) / field
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def the_doctor_reads_damaged_files():
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(fifo := pathlib.Path(folder) / "fifo")
        files = [damaged(folder, "strings", 2**64 - 8), damaged(folder, "size", 2**64 - 1), fifo]
        return expect(*((str(path), status("doctor", "--", str(path)) in (0, 1), True)
                        for path in files))


def tracing_changes_nothing_and_counts():
    got, stats = stats_of("trace", "--", *lives("--engine=v8-20", "--pages=16"))
    shape = stats["shapes"][0]
    return expect(("status", got, 0), ("hits", stats["hits"], 0), ("freed", shape["freed"], 2000),
                  ("pages", shape["pages"], 32000), ("estimates", isinstance(stats["would_save_lazy_ns"], float), True))


# --- the shared object ---

def readelf(what):
    got, output = tap.command(["readelf", "--wide", what, preload])
    assert got == 0, output
    return output


def it_needs_the_c_library_alone():
    needed = re.findall(r"NEEDED.*\[(.*)\]", readelf("-d"))
    return [name for name in needed if not name.startswith(("libc.so", "ld-linux", "ld64"))]


def symbols(undefined):
    rows = [line.split() for line in readelf("--dyn-syms").splitlines()]
    return {row[7].split("@")[0] for row in rows
            if len(row) >= 8 and (row[6] == "UND") == undefined and row[0][:-1].isdigit()}


def it_stands_in_for_the_names_in_its_map_only():
    text = (source / "lib" / "preload.map").read_text().split("global:")[1].split("local:")[0]
    wanted = set(re.findall(r"\b(\w+);", text))
    return [f"{name}: in one only" for name in sorted(wanted ^ symbols(False))]


def it_uses_neither_malloc_nor_stdio_nor_dlsym():
    never = re.compile(r"(malloc|calloc|realloc|free|memalign|printf|f?puts|fopen|dlsym|dlopen|"
                       r"pthread_create|sigaction|exit|abort|__assert_fail|mmap|munmap)$")
    return [name for name in sorted(symbols(True)) if never.match(name)]


def calls_that_do_not_match_cost_little():
    """Instructions a call, four calls a round. valgrind knows none of the newer system calls."""
    if not shutil.which("valgrind"):
        raise tap.Skip("no valgrind")

    def count(rounds, environment):
        _, output = tap.command(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                                 calls, str(rounds)], env={**os.environ, **environment})
        found = re.search(r"Collected : (\d+)", output)
        if not found:
            raise tap.Skip("callgrind says nothing")
        return int(found[1])
    plain = count(2000, {}) - count(1000, {})
    loaded = {"LD_PRELOAD": preload, "MEMSLOT_DISABLE": "guard_install,guard_category,pagemap_scan,"
              "procmap_query,wipe_on_fork,dontneed_locked"}
    ours = count(2000, loaded) - count(1000, loaded)
    more = (ours - plain) / 4000
    return [f"{more} instructions"] if not 0 < more <= 200 else []


def main(arguments):
    global source, memslot, preload, calls
    source = pathlib.Path(arguments[0]).resolve()
    memslot, preload, calls = (str(pathlib.Path(path).resolve()) for path in arguments[1:4])
    tests = [the_exit_status_is_the_programs, signals_are_sent_on,
             what_the_program_sends_its_parent_stays_there, an_ignored_sigchld_stays_ignored,
             it_stops_and_continues_with_the_program, the_terminal_reaches_the_program_once,
             what_cannot_be_run_is_told_once, a_file_that_cannot_be_written_is_told_first,
             statistics_are_for_people_and_machines_at_once,
             it_counts_however_the_program_ends, children_may_be_left_out, budgets_hold,
             who_writes_little_is_left_alone_until_it_writes_more,
             who_never_unmaps_whole_is_left_alone, it_stands_aside_where_it_must, trusting_needs_a_kernel_that_tells,
             the_doctor_knows_what_will_not_work, the_doctor_reads_damaged_files,
             tracing_changes_nothing_and_counts,
             it_needs_the_c_library_alone, it_stands_in_for_the_names_in_its_map_only,
             it_uses_neither_malloc_nor_stdio_nor_dlsym, calls_that_do_not_match_cost_little]
    return tap.run([(test.__name__, test) for test in tests] +
                   [(f"engine {name}", lambda name=name: engine(name)) for name in engine_names()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
