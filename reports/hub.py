"""A hub of the reference server in a process of its own, and load on it: what the named runs share."""
import json, os, signal, subprocess, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HUBPROOF = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "hubproof")


def build():
    os.chdir(ROOT)
    subprocess.run(["cargo", "build", "--release", "--quiet"], check=True)


class Hub:
    """`nice`: how far behind the generator the hub stands where both want the same core."""

    def __init__(self, *words, nice=0):
        words = [HUBPROOF, "serve", *words]
        self.process = subprocess.Popen(["nice", "-n", str(nice), *words] if nice else words, stdout=subprocess.PIPE, text=True)
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
