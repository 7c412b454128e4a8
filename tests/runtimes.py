#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Real programs under the preload, as they are installed here; the others are skipped.

usage: runtimes.py SOURCE_ROOT MEMSLOT     (TAP on standard output)

Each program runs plainly, with `memslot run`, and with --trust-engine, and must say the same.
"""
import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import tap

here, memslot = None, None
WAYS = {"strict": [], "trusted": ["--trust-engine"]}


def tool(*names):
    """The first of these programs that is installed."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise tap.Skip(f"no {names[0]}")


def library(pattern):
    found = sorted(glob.glob(f"/usr/lib/*/{pattern}"))
    if not found:
        raise tap.Skip(f"no {pattern}")
    return found[-1]


def run(command, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                          errors="replace", timeout=300, check=False, **more)
    return f"{done.stdout}exit status {done.returncode}\n"


@contextlib.contextmanager
def under(way, *options):
    """`memslot run`, and afterwards what it counted."""
    stats = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "stats.json"
        yield [memslot, "run", *WAYS[way], *options, f"--stats=json:{path}", "--"], stats
        stats.update(json.loads(path.read_text()))


def same(command, slots, plain=None, **more):
    """Plainly and under the preload; slots: how many hits there must be at least."""
    plain = run(command, **more) if plain is None else plain
    problems = []
    for way in WAYS:
        with under(way) as (words, stats):
            ours = run([*words, *command], **more)
        if ours != plain:
            problems += [f"{way}: plainly", *plain.splitlines()[-8:], f"{way}: under the preload",
                         *ours.splitlines()[-8:]]
        if stats["hits"] < slots or stats["processes"] == 0:
            problems.append(f"{way}: {stats['hits']} hits, {stats['processes']} processes")
    return problems


GOOD = "lives 1000 stale 0 missed 0 of 4334\nexit status 0\n"


def node():
    return same([tool("node", "nodejs"), "--expose-gc", here / "churn.js"], 100, GOOD)


def node_without_asking_for_collections():
    return same([tool("node", "nodejs"), here / "churn.js"], 100, GOOD)


def node_workers():
    program = [tool("node", "nodejs"), "--expose-gc", here / "churn.js", "workers"]
    problems = []
    for way in WAYS:
        with under(way) as (words, stats):
            ours = run([*words, *program])
        if ours.count("stale 0 missed 0") != 4 or ours.count("worker ended 0") != 4 or \
                stats["hits"] < 100:
            problems += [f"{way}: {stats['hits']} hits", *ours.splitlines()[-8:]]
    return problems


def node_with_its_own_malloc(pattern):
    environment = {**os.environ, "LD_PRELOAD": library(pattern)}
    return same([tool("node", "nodejs"), "--expose-gc", here / "churn.js"], 100, GOOD,
                env=environment)


def spidermonkey():
    shell = tool("js140", "js128", "js115", "js102", "js91")
    return same([shell, here / "churn.js"], 100, GOOD)


def wasm2c():
    programs = [tool("wat2wasm"), tool("wasm2c"), tool("cc", "gcc")]
    runtime = "/usr/share/wabt/wasm2c"
    if not pathlib.Path(runtime, "wasm-rt-impl.c").exists():
        raise tap.Skip("no wasm-rt-impl.c")
    with tempfile.TemporaryDirectory() as folder:
        steps = [[programs[0], here / "guest.wat", "-o", "guest.wasm"],
                 [programs[1], "guest.wasm", "-o", "guest.c"],
                 [programs[2], "-O2", "-w", f"-I{runtime}", "-I.", here / "host.c", "guest.c",
                  f"{runtime}/wasm-rt-impl.c", "-o", "host", "-lm"]]
        for step in steps:
            output = run(step, cwd=folder)
            if "Z_guest_instantiate" in output:
                raise tap.Skip("a wasm2c that names functions otherwise")
            if not output.endswith("exit status 0\n"):
                return output.splitlines()
        return counted([f"{folder}/host", "17000"])


def counted(command):
    """As many instances as without us, or more; where each begins is chance otherwise."""
    def count(output):
        return int(re.search(r"instances (\d+)", output)[1])
    plain, problems = run([tool("setarch"), "-R", *command]), []
    for way in WAYS:
        with under(way, "--no-aslr") as (words, stats):
            ours = run([*words, *command])
        if "stale 0 missed 0" not in ours or count(ours) < count(plain):
            problems += [way, plain, ours, f"{stats['left']}"]
    return problems


def shell():
    return same([tool("bash"), "-c", "for i in $(seq 30); do echo $(echo $i | tr 0-9 a-j); done; "
                 "exec 3</dev/null; (exit 7)"], 0)


def python():
    program = ("import mmap, subprocess, sys, threading\n"
               "for i in range(50):\n"
               "    with mmap.mmap(-1, 32 << 20) as m:\n"
               "        assert m[:4096] == bytes(4096); m[:5] = b'hello'\n"
               "print(subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True))\n"
               "t = [threading.Thread(target=sum, args=([1],)) for _ in range(5)]\n"
               "[x.start() for x in t]; [x.join() for x in t]\n")
    return same([sys.executable, "-c", program], 0, None)


def ruby():
    program = ("a = (1..200000).map(&:to_s); 5.times { fork { GC.start; exit! a.size == 200000 } };"
               "5.times { Process.wait; print $?.exitstatus }; Thread.new { puts a.join.size }.join")
    return same([tool("ruby"), "-e", program], 0)


def java():
    program = ("class Churn { public static void main(String[] a) throws Exception {"
               "long s = 0; for (int i = 0; i < 300; i++) { byte[] b = new byte[1 << 20];"
               "b[i] = 1; s += b[i]; } System.gc(); Thread t = new Thread(() -> {}); t.start();"
               "t.join(); System.out.println(s); } }")
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "Churn.java"
        source.write_text(program)
        if not shutil.which("javac"):
            raise tap.Skip("no javac")
        if (output := run([tool("javac"), source])) != "exit status 0\n":
            return output.splitlines()
        problems = same([tool("java"), "-Xmx256m", "-cp", folder, "Churn"], 0)
        with under("strict") as (words, stats):
            run([*words, tool("java"), "-Xmx256m", "-cp", folder, "Churn"])
        return problems + ([f"took slots: {stats}"] if stats["hits"] else [])


def redis():
    server, client = tool("redis-server"), tool("redis-cli")
    problems = []
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder, under(way) as (words, _):
            socket = f"{folder}/socket"
            process = subprocess.Popen([*words, server, "--port", "0", "--unixsocket", socket,
                                        "--dir", folder, "--daemonize", "no"],
                                       stdout=subprocess.DEVNULL)
            try:
                problems += talk([client, "-s", socket], pathlib.Path(folder) / "dump.rdb")
            finally:
                run([client, "-s", socket, "shutdown", "nosave"])
                if status := process.wait(60):
                    problems.append(f"{way}: exit status {status}")
    return problems


def talk(client, dump):
    for _ in range(200):
        if "PONG" in run([*client, "ping"]):
            break
        time.sleep(0.05)
    run([*client, "eval", "for i = 1, 20000 do redis.call('set', i, string.rep(i, 50)) end", "0"])
    run([*client, "bgsave"])
    for _ in range(400):
        if "rdb_bgsave_in_progress:0" in run([*client, "info", "persistence"]):
            break
        run([*client, "set", "x", "y"])
        time.sleep(0.02)
    good = "rdb_last_bgsave_status:ok" in run([*client, "info", "persistence"]) and dump.exists()
    return [] if good and "20001" in run([*client, "dbsize"]) else ["the background save failed"]


def main(arguments):
    global here, memslot
    here, memslot = pathlib.Path(arguments[0]).resolve() / "tests" / "runtimes", arguments[1]
    return tap.run([
        ("node: zeros and traps", node),
        ("node: natural collections", node_without_asking_for_collections),
        ("node: worker_threads", node_workers),
        ("node with jemalloc", lambda: node_with_its_own_malloc("libjemalloc.so.2")),
        ("node with mimalloc", lambda: node_with_its_own_malloc("libmimalloc.so.[23]")),
        ("spidermonkey's shell", spidermonkey),
        ("wasm2c: as many instances", wasm2c),
        ("bash", shell), ("python", python), ("ruby", ruby), ("redis: background save", redis),
        ("java takes no slots", java),
    ])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
