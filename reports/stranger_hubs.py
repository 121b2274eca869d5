"""The hubs in tests/strangers, and one run of hubproof against one of them: what `strangers` and `mutants` share."""
import glob, json, os, shlex, signal, subprocess, tempfile, time, venv

from rounds import ROOT, free_port

HUBS, FOLDER = os.path.join(ROOT, "tests", "strangers"), os.path.join(ROOT, "target", "strangers")
PYTHON = os.path.join(FOLDER, "venv", "bin", "python")


def install():
    """Installs what the hubs import."""
    os.makedirs(FOLDER, exist_ok=True)
    if not os.path.exists(PYTHON):
        venv.create(os.path.join(FOLDER, "venv"), with_pip=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r",
                    os.path.join(HUBS, "requirements.txt")], check=True)
    # Beside the hubs, where Node looks for modules.
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=HUBS, check=True)


def names():
    return sorted(name for name in os.listdir(HUBS) if os.path.exists(os.path.join(HUBS, name, "target.toml")))


def start_words(hub, folder=None):
    """Returns the command that starts a hub, from another folder than its own if `folder` is given."""
    folder = folder or os.path.join(HUBS, hub)
    return [PYTHON, os.path.join(folder, "hub.py")] if hub.endswith("-python") else ["node", os.path.join(folder, "hub.mjs")]


def listed(hub):
    return json.loads(subprocess.run([*start_words(hub), "--list"], capture_output=True, text=True, check=True).stdout)


def descendants(pid):
    """Returns the ids of the processes that a process started, and of those that they started."""
    found = []
    # Each thread has the list of those that it started.
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as file:
                children = [int(child) for child in file.read().split()]
        except OSError:  # it has ended
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def completed(words, limit, **options):
    """Returns the exit code (124 beyond `limit` seconds) and the output of a program. Nothing that it started is left running."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
        for pid in started:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return 124, process.communicate()[0]


def run(hubproof, hub, words, start, limit=900):
    """Runs hubproof against a hub that the words `start` start. Returns its `code`, the rules that are `accused` with their lines,
    its `output`, the `seconds` it took, and its report as `document`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        report, target = os.path.join(folder, "report.json"), os.path.join(folder, "target.toml")
        with open(os.path.join(HUBS, hub, "target.toml")) as file:
            text = file.read().replace("PORT", str(port))
        with open(target, "w") as file:
            file.write(text)
        begun = time.monotonic()
        code, output = completed(
            [hubproof, *words, "--protocol", hub.split("-")[0], "--target", target, "--set", f"url=ws://127.0.0.1:{port}",
             "--exec", shlex.join([*start, "--port", str(port)]), "--report", f"json={report}"], limit, cwd=ROOT)
        seconds = round(time.monotonic() - begun, 1)
        document = {"protocols": []}
        if os.path.exists(report):
            with open(report) as file:
                document = json.load(file)
    accused, verdicts = {}, set()
    for protocol in document["protocols"]:
        for finding in protocol["findings"]:
            if finding["verdict"] in ("fail", "warn"):
                verdicts.add(finding["verdict"])
                for rule in finding["rules"] or [finding["check"]]:
                    accused[rule] = protocol["rules"]["by_id"].get(rule, {}).get("line")
    # A warning is no failure, but notices a bug.
    code = 1 if "fail" in verdicts else 4 if verdicts else code
    return {"code": code, "accused": accused, "output": output, "seconds": seconds, "document": document}


def due_to_bug(one, plain):
    """Returns what a run found, without what the correct hub is accused of."""
    if one["code"] not in (1, 4):
        return one
    accused = {rule: line for rule, line in one["accused"].items() if rule not in plain["accused"]}
    return one | {"accused": accused, "code": one["code"] if accused else 0}
