"""A hub of the reference server in a process of its own, and load on it: what the named runs share."""
import atexit, json, os, signal, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HUBPROOF = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "hubproof")


def build():
    os.chdir(ROOT)
    subprocess.run(["cargo", "build", "--release", "--quiet"], check=True)


def stand_behind():
    """This process has a core whenever nobody else wants it."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def keep_awake():
    """Keeps the cores from sleeping until this process ends: waking one that is virtual takes its host up to milliseconds, which
    would be measured as the generator's and the hub's. What keeps them awake stands behind everybody, and yields."""
    loop = f"import os\nwhile os.getppid() == {os.getpid()}:\n    for _ in range(1000): os.sched_yield()"

    def settle(core):
        stand_behind()
        os.sched_setaffinity(0, {core})

    for core in os.sched_getaffinity(0):
        process = subprocess.Popen([sys.executable, "-c", loop], preexec_fn=lambda: settle(core))
        atexit.register(process.kill)


class Hub:
    """`behind`: the hub waits where the generator wants the same core. `within`: the network namespace that it is in."""

    def __init__(self, *words, behind=False, within=None):
        start = stand_behind if behind else None
        inside = ["ip", "netns", "exec", within] if within else []
        self.process = subprocess.Popen([*inside, HUBPROOF, "serve", *words], stdout=subprocess.PIPE, text=True, preexec_fn=start)
        self.url = self.process.stdout.readline().split()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def cpu(self):
        """Seconds of CPU that it has taken, user and system."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(url, *words):
    """One run: its report, what it printed, its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "report.json")
        done = subprocess.run([HUBPROOF, "load", url, *words, "--report", f"json={path}"], capture_output=True, text=True)
        if not os.path.exists(path):
            raise SystemExit(f"no report, exit {done.returncode}\n{done.stderr}")
        with open(path) as file:
            return json.load(file), done.stdout, done.returncode
