"""What a run needs of the machine: a directory, a user that Postgres accepts, free ports, processes that end with it."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def say(text):
    """Progress, on stderr: stdout is for the table."""
    print(text, file=sys.stderr, flush=True)


class Failed(Exception):
    """What cannot be measured, and why."""


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def free_port_with_grpc():
    """A free port whose number plus 10000, where SeaweedFS' parts look for each other, is free too."""
    for _ in range(1000):
        port = free_port()
        if port < 55000:
            with socket.socket() as door:
                try:
                    door.bind(("127.0.0.1", port + 10000))
                    return port
                except OSError:
                    pass
    raise Failed("no pair of free ports")


def wait_for(what, limit, condition, pause=0.05):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit} s")
        time.sleep(pause)


class Machine:
    """The run's directory, its user, and every process that it started."""

    def __init__(self, parent=None):
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="walhalla-bench-", dir=parent))
        self.uid = self.gid = None
        if os.geteuid() == 0:
            self.user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if known(name))
            self.uid, self.gid = self.user.pw_uid, self.user.pw_gid
        os.chmod(self.directory, 0o755)
        # A configuration that says nothing, so that none of the machine's is read.
        self.nothing = self.path("nothing")
        with open(self.nothing, "x"):
            pass
        self.children = []
        self.elsewhere = []

    def environment(self, **more):
        """Enough to run, and no variable of the caller's by accident."""
        home = self.directory
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": home, **more}

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def make(self, *names):
        """A directory of the unprivileged user's, 0700, empty."""
        path = self.path(*names)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path, mode=0o755)
        os.chmod(path, 0o700)
        self.give(path)
        return path

    def make_on(self, parent):
        """The same on another file system; gone with the run."""
        path = tempfile.mkdtemp(prefix="walhalla-bench-", dir=parent)
        self.elsewhere.append(path)
        self.give(path)
        return path

    def give(self, path):
        if self.uid is not None:
            os.chown(path, self.uid, self.gid)

    def as_user(self):
        """Arguments of subprocess that make a program run as the unprivileged user."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, argv, env=None, cwd=None, user=True):
        """Runs a program to its end; its output, or an error that says what it said."""
        done = subprocess.run(
            argv,
            env=env or self.environment(),
            cwd=cwd or self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            **(self.as_user() if user else {}),
        )
        if done.returncode != 0:
            raise Failed(f"{os.path.basename(argv[0])} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def start(self, name, argv, env=None, cwd=None, user=True, **more):
        """Starts a program whose output goes to a log, and that ends with the run."""
        with open(self.path(f"{name}.log"), "ab") as log:
            more = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **more}
            child = subprocess.Popen(
                argv,
                env=env or self.environment(),
                cwd=cwd or self.directory,
                start_new_session=True,
                **(self.as_user() if user else {}),
                **more,
            )
        self.children.append(child)
        return child

    def stop(self, child, how=signal.SIGKILL, limit=60):
        if child.poll() is None:
            child.send_signal(how)
        child.wait(limit)
        self.children.remove(child)

    def close(self):
        """Ends what is left, and leaves nothing behind."""
        for child in list(self.children):
            self.stop(child)
        # What its servers had started and left alone: helpers, a peer's processes. Its parent is gone, its directory is ours.
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) != os.getpid() and self.directory in words_of(pid):
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass
        for path in [self.directory, *self.elsewhere]:
            shutil.rmtree(path, ignore_errors=True)


def known(user):
    try:
        return bool(pwd.getpwnam(user))
    except KeyError:
        return False


def words_of(pid):
    """Where a process works, and what it was told."""
    words = ""
    for read in (
        lambda: os.readlink(f"/proc/{pid}/cwd"),
        lambda: open(f"/proc/{pid}/cmdline", errors="replace").read(),
    ):
        try:
            words += read()
        except OSError:
            pass
    return words


class Runner:
    """Runs programs as the unprivileged user and measures them (runner.py)."""

    def __init__(self, machine):
        # Before it gives up root's rights it has read all that it needs.
        self.child = machine.start(
            "runner",
            [
                sys.executable,
                "-IS",
                os.path.join(HERE, "runner.py"),
                str(-1 if machine.uid is None else machine.uid),
                str(machine.gid or -1),
            ],
            user=False,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, argv, env, cwd, timeout=120):
        """What it cost, whatever its status."""
        order = {"argv": argv, "env": env, "cwd": cwd, "timeout": timeout}
        print(json.dumps(order), file=self.child.stdin, flush=True)
        answer = self.child.stdout.readline()
        if not answer:
            raise Failed("the runner is gone")
        return json.loads(answer)

    def must(self, argv, env, cwd, timeout=120):
        """What it cost; a status other than 0 is a failure."""
        answer = self.run(argv, env, cwd, timeout)
        if answer["status"] != 0:
            said = " ".join(answer["stderr"].split()) or "nothing said"
            raise Failed(f"{os.path.basename(argv[0])} ended with {answer['status']}: {said[-300:]}")
        return answer
