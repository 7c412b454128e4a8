#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""memslot serve and memslot load over loopback, in every way the server can work.

usage: serve.py MEMSLOT     (TAP on standard output)

MEMSLOT_TEST_SEED is the client's seed; the server's own counts have to add up in every test.
"""
import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

import tap

memslot = None
folder = None  # what is served
seed = int(os.environ.get("MEMSLOT_TEST_SEED") or random.randrange(1 << 31))

PLAIN, SMALL = ["--plain"], ["--budget", "64K", "--buffer-size", "8K"]
COPYLESS = ["--zero-copy", "0", "--buffer-size", "64K"]
FEATURES = ["io_uring", "uring_fixed", "uring_groups", "uring_send_zc", "uring_recv_multishot",
            "uring_sync_cancel", "all"]


def environment(disable):
    inherited = os.environ.get("MEMSLOT_DISABLE", "")
    return {**os.environ, "MEMSLOT_DISABLE": ",".join(filter(None, [inherited, disable]))}


@contextlib.contextmanager
def server(*options, disable="", status=0):
    """A server on a free port: (port, report), where report is filled when it has ended well."""
    report = {}
    process = subprocess.Popen([memslot, "serve", "--port", "0", "--json", *options],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment(disable))
    try:
        line = process.stderr.readline()
        yield int(re.search(r":(\d+) \(", line)[1]), report
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == status, f"the server's exit status {process.returncode}: {err}"
        report.update(json.loads(out))
    except Exception as trouble:
        process.kill()
        raise AssertionError(f"{trouble!r}; the server: {process.communicate()}") from trouble
    finally:
        process.kill()
        process.communicate()


def load(port, *options):
    return tap.command([memslot, "load", "--seed", seed, *options, "127.0.0.1", port])


def dial(port, window=None):
    connection = socket.socket()
    connection.settimeout(20)
    if window:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    connection.connect(("127.0.0.1", port))
    return connection


def answer(port, request):
    """What one request is answered with, until the server hangs up."""
    with dial(port) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def fill(connection):
    """Send until nobody takes any more: how many bytes?"""
    sent = 0
    connection.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        while True:
            sent += connection.send(bytes(65536))
    return sent


# --- every byte, in every way ---

def every_byte(options, disable, echo, visits):
    with server(*options, "--echo" if echo else folder, disable=disable) as (port, report):
        status, output = load(port, "--visits", visits, *([] if echo else ["--files", folder]))
        if status:
            return [f"seed {seed}", output]
    problems = []
    wants = "epoll" if not has_uring(disable) else "io_uring"
    if report["engine"] != wants:
        problems.append(f"engine {report['engine']}, not {wants}")
    if options == SMALL and report["pool"]["high_water"] > 65536:
        problems.append(f"beyond the budget: {report['pool']['high_water']}")
    if options == COPYLESS and wants == "io_uring" and not report["counts"]["zero_copy_sends"]:
        problems.append("nothing was sent without a copy")
    return problems


@functools.lru_cache(maxsize=None)
def has_uring(disable):
    """Has the server io_uring, as the tool itself says?"""
    done = subprocess.run([memslot, "info", "--json"], env=environment(disable), check=True,
                          capture_output=True, text=True)
    return any(feature["name"] == "io_uring" and feature["present"]
               for feature in json.loads(done.stdout)["features"])


def ways():
    for echo in (True, False):
        what = "echo" if echo else "files"
        for options, name in (([], "pool"), (PLAIN, "plain"), (SMALL, "small budget"),
                              (COPYLESS, "zero copy")):
            yield (f"{what}: {name}", functools.partial(every_byte, options, "", echo, 25))
        for feature in FEATURES:
            yield (f"{what}: without {feature}",
                   functools.partial(every_byte, SMALL, feature, echo, 12))
        yield (f"{what}: plain, without io_uring",
               functools.partial(every_byte, PLAIN, "io_uring", echo, 12))


# --- the client notices ---

def the_client_notices_a_file_that_changed():
    with tempfile.TemporaryDirectory() as other:
        shutil.copytree(folder, other, dirs_exist_ok=True)
        middle = pathlib.Path(other) / "middle"
        content = bytearray(middle.read_bytes())
        content[77777] ^= 1
        middle.write_bytes(content)
        with server(other) as (port, _):
            status, output = load(port, "--files", folder, "--visits", 50)
    return [] if status == 3 and "sum of a body" in output else [f"{status}: {output}"]


def the_client_notices_a_byte_that_changed():
    def echo():
        connection, _ = listener.accept()
        total = 0
        with connection, contextlib.suppress(OSError):
            while data := bytearray(connection.recv(65536)):
                if total <= 50000 < total + len(data):
                    data[50000 - total] ^= 1
                total += len(data)
                connection.sendall(data)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo)
        thread.start()
        status, output = load(listener.getsockname()[1], "--visits", 1, "--bytes", "8M")
        thread.join()
    return [] if status == 3 and "byte" in output else [f"{status}: {output}"]


# --- who does not behave ---

def a_client_that_does_not_read_keeps_nobody_else_from_it():
    problems = []
    for disable in ("", "io_uring"):
        with server("--echo", "--budget", "1M", disable=disable) as (port, report):
            with dial(port) as silent:
                fill(silent)
                status, output = load(port, "--visits", 20)
                problems += tap.wrong(status, output, f"load, without {disable}")
        if report["pool"]["high_water"] > 1 << 20:
            problems.append(f"beyond the budget: {report['pool']['high_water']}")
    return problems


def read_all(connection):
    """Nothing more is sent: how many bytes come?"""
    connection.settimeout(20)
    connection.shutdown(socket.SHUT_WR)
    return sum(map(len, iter(lambda: connection.recv(1 << 20), b"")))


def who_finds_the_budget_spent_waits():
    problems = []
    for disable in ("", "uring_groups", "io_uring"):
        with server("--echo", *SMALL, disable=disable) as (port, report), \
                contextlib.ExitStack() as stack:
            silent = [stack.enter_context(dial(port, 65536)) for _ in range(8)]
            sent = [fill(connection) for connection in silent]
            last = stack.enter_context(dial(port))
            last.sendall(b"me, too")
            last.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                problems.append(f"without {disable}: {last.recv(100)}, with nothing to hold it")
            with concurrent.futures.ThreadPoolExecutor(8) as readers:
                got = list(readers.map(read_all, silent))
            if got != sent:
                problems.append(f"without {disable}: {got} of {sent} bytes")
            last.settimeout(20)
            problems += [] if last.recv(100) == b"me, too" else ["lost"]
        if report["counts"]["waits_for_buffers"] == 0:
            problems.append(f"without {disable}: nobody waited")
    return problems


def clients_that_vanish_leave_nothing_behind():
    for disable in ("", "io_uring"):
        for options in (["--echo"], [folder], [folder, *PLAIN], [folder, *COPYLESS]):
            with server(*options, disable=disable) as (port, report):
                for _ in range(20):
                    connection = dial(port)
                    connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
                    connection.recv(1000)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                          struct.pack("ii", 1, 0))
                    connection.close()
            if report["counts"]["accepted"] != 20:
                return [f"{report['counts']}"]
    return []


def a_file_that_is_cut_short_is_not_filled_up():
    for disable in ("", "io_uring"):
        path = pathlib.Path(folder) / "shrinking"
        path.write_bytes(bytes(16 << 20))
        try:
            with server(folder, disable=disable) as (port, report), dial(port) as connection:
                connection.sendall(b"GET /shrinking HTTP/1.1\r\nHost: x\r\n\r\n")
                got = len(connection.recv(1000))
                os.truncate(path, 1 << 20)
                while part := connection.recv(1 << 20):
                    got += len(part)
        finally:
            path.unlink()
        if got >= 16 << 20 or report["counts"]["cut_off"] != 1:
            return [f"{got} bytes, {report['counts']['cut_off']} cut off"]
    return []


def sigterm_ends_the_reply_that_was_begun():
    size = (pathlib.Path(folder) / "big").stat().st_size
    rest = []

    def read(connection):
        with connection:
            rest.append(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
    for disable in ("", "io_uring"):
        with server(folder, disable=disable) as (port, report):
            connection = dial(port)
            connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            first = connection.recv(1000)
            timer = threading.Timer(0.1, read, [connection])
            timer.start()
        timer.join()
        got = len((first + rest.pop()).partition(b"\r\n\r\n")[2])
        if got != size or report["counts"]["finished"] != 1:
            return [f"{got} bytes of {size}, {report['counts']}"]
    return []


def more_connections_than_allowed_wait():
    with server("--echo", "--connections", "2") as (port, report):
        status, output = load(port, "--visits", 30, "--connections", 10)
    if report["most_connections"] > 2:
        return [f"{report['most_connections']} at once"]
    return tap.wrong(status, output, "load")


# --- requests ---

def status_of(port, request):
    return answer(port, request).split(b" ", 2)[1].decode()


def paths_do_not_leave_the_folder():
    problems = []
    outside = pathlib.Path(folder).parent / "outside"
    links = [pathlib.Path(folder) / name for name in ("link", "door")]
    outside.write_text("secret")
    links[0].symlink_to(outside)
    links[1].symlink_to(outside.parent)
    try:
        with server(folder) as (port, _):
            for path in ("/../outside", "/sub/../../outside", "/%2e%2e/outside", "/..%2foutside",
                         "/sub/%2E%2e/%2e./outside", "//../outside", "/link", "/door/outside",
                         "/sub/..", "/./../outside", "/.%00./outside", "/sub"):
                reply = answer(port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
                if b"secret" in reply or reply.split(b" ", 2)[1] not in (b"400", b"404"):
                    problems.append(f"{path}: {reply[:80]}")
    finally:
        outside.unlink()
        for link in links:
            link.unlink()
    return problems


def requests_are_answered_as_they_should():
    rows = [("GET /small HTTP/1.0\r\n\r\n", "200"), ("GET / HTTP/1.0\r\n\r\n", "200"),
            ("GET /sub/deep HTTP/1.0\r\n\r\n", "200"), ("GET /none HTTP/1.0\r\n\r\n", "404"),
            ("GET http://x/small HTTP/1.0\r\n\r\n", "200"), ("\r\nGET /small HTTP/1.0\r\n\r\n", "200"),
            ("GET /small?x HTTP/1.0\r\n\r\n", "200"), ("GET small HTTP/1.0\r\n\r\n", "400"),
            ("DELETE /small HTTP/1.0\r\n\r\n", "405"), ("GET /small HTTP/1.1\r\n\r\n", "400"),
            ("GET /small HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
            ("GET /small HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", "400"),
            ("GET /small HTTP/1.0\r\nA: b\r\n c\r\n\r\n", "400"),
            ("GET /%zz HTTP/1.0\r\n\r\n", "400"), ("GET /a b HTTP/1.0\r\n\r\n", "400"),
            ("GET /small HTTP/3.0\r\n\r\n", "505"), ("GET /" + 9000 * "a", "431"),
            ("GET /" + 2000 * "a" + " HTTP/1.0\r\n\r\n", "400")]
    with server(folder) as (port, _):
        return [f"{request[:60]!r}: {got}, not {status}" for request, status in rows
                if (got := status_of(port, request.encode())) != status]


def a_connection_lives_as_long_as_it_is_asked_to():
    def count(text):
        return answer(port, text).count(b"HTTP/1.1 200 OK")
    with server(folder) as (port, _):
        new = b"GET /small HTTP/1.1\r\nHost: x\r\n"
        old = b"GET /small HTTP/1.0\r\n"
        rows = [(3 * (new + b"\r\n"), 3), (2 * (old + b"Connection: Keep-Alive\r\n\r\n"), 2),
                (new + b"Connection: close\r\n\r\n" + new + b"\r\n", 1), (2 * (old + b"\r\n"), 1)]
        return [f"{text}: {got}, not {wanted}" for text, wanted in rows
                if (got := count(text)) != wanted]


# --- wrk ---

def wrk_finds_no_error():
    wrk = shutil.which("wrk")
    problems = []

    def drive(options, disable):
        with server(folder, *options, disable=disable) as (port, report):
            status, output = tap.command([wrk, "-t1", "-c32", "-d1s",
                                          f"http://127.0.0.1:{port}/page"])
        if status or re.search("Non-2xx|Socket errors", output) or not report["replies"]["200"]:
            problems.append(f"{options} without {disable}: {output}")
    if not wrk:
        raise tap.Skip("wrk is not installed")
    threads = [threading.Thread(target=drive, args=way)
               for way in (([], ""), (PLAIN, ""), (SMALL, ""), ([], "io_uring"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def make_files():
    root = pathlib.Path(folder)
    (root / "sub").mkdir(parents=True)
    rng = random.Random(seed)
    for name, size in (("empty", 0), ("small", 100), ("index.html", 300), ("page", 4096),
                       ("buffer", 16384), ("middle", 123457), ("sub/deep", 8192),
                       ("sub/a b%3f?#.txt", 5000), ("big", 7 << 20)):
        (root / name).write_bytes(rng.randbytes(size))


def main():
    global memslot, folder
    memslot = sys.argv[1]
    print(f"seed {seed}", file=sys.stderr)
    tests = [*ways()]
    for test in (the_client_notices_a_file_that_changed, the_client_notices_a_byte_that_changed,
                 a_client_that_does_not_read_keeps_nobody_else_from_it,
                 who_finds_the_budget_spent_waits,
                 clients_that_vanish_leave_nothing_behind, a_file_that_is_cut_short_is_not_filled_up,
                 sigterm_ends_the_reply_that_was_begun, more_connections_than_allowed_wait,
                 paths_do_not_leave_the_folder, requests_are_answered_as_they_should,
                 a_connection_lives_as_long_as_it_is_asked_to, wrk_finds_no_error):
        tests.append((test.__name__, test))
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "files")
        make_files()
        return tap.run(tests)


if __name__ == "__main__":
    sys.exit(main())
