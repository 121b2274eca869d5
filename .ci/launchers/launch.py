"""Runs the launchers of examples/scale with little load on this machine. See run."""

import getpass, json, os, pathlib, shutil, socket, subprocess, sys, tempfile, time

import yaml

HUBPROOF, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
SCALE = pathlib.Path("examples/scale")
# What the plans of the examples are replaced by.
SMALL = ["--rate=40", "--warm-up=1s", "--duration=2s", "--drain=5s", "--workers=10", "--clients=4", "--ramp=200ms"]
SLURM_PATIENCE = 120


def check_report(folder, shares):
    """Merges the shares in a folder, and fails unless the report is that of a whole run."""
    report = folder / "run.json"
    done = subprocess.run([HUBPROOF, "merge", folder, "--report", f"json={report}"], capture_output=True, text=True)
    # A busy machine may make the run suspect.
    assert done.returncode in (0, 3), done.stdout + done.stderr
    check_counts(report, shares)


def check_counts(report, shares):
    document = json.loads(report.read_text())
    counts = document["ledger"]["counts"]
    assert counts["attempted"] == counts["completed"] > 0, counts
    print(f"  {shares} shares: {counts['completed']} jobs completed, none lost")


def kubernetes(url):
    """Validates the manifests, and runs what the pods of the job run."""
    print("Kubernetes")
    files = sorted((SCALE / "kubernetes").glob("*.yaml"))
    resources = [path for path in files if path.name != "kustomization.yaml"]
    listed = yaml.safe_load((SCALE / "kubernetes/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == [path.name for path in resources], listed
    tool = pathlib.Path(sys.executable).with_name("kubernetes-validate")
    subprocess.run([tool, "--strict", "--quiet", *resources], check=True)
    job = yaml.safe_load((SCALE / "kubernetes/job.yaml").read_text())["spec"]
    container = job["template"]["spec"]["containers"][0]
    plain = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    assert int(plain["SHARES"]) == job["completions"] == job["parallelism"]
    with tempfile.TemporaryDirectory() as results:
        pods = []
        for index in range(job["completions"]):
            values = {**plain, "HUB": url, "INDEX": str(index), "RUN": "9d5b3a5e-pods"}
            assert {one["name"] for one in container["env"]} == set(values)
            words = [fill(word, values, results) for word in small(container["args"])]
            pods.append(subprocess.Popen([HUBPROOF, *words], stderr=subprocess.DEVNULL))
        assert [pod.wait() for pod in pods] == [0] * len(pods)
        check_report(pathlib.Path(results), len(pods))


def small(words):
    """Returns the arguments with another, smaller plan."""
    own = {word.split("=")[0] for word in SMALL}
    assert any(word.startswith("--rate=") for word in words), words
    return [word for word in words if word.split("=")[0] not in own] + SMALL


def fill(word, values, results):
    for name, value in values.items():
        word = word.replace(f"$({name})", value)
    assert "$(" not in word, word
    return word.replace("/results", results)


def slurm(url):
    """Starts a Slurm with one node, submits the batch job, and waits for its report."""
    print("Slurm")
    with tempfile.TemporaryDirectory() as name:
        folder, host = pathlib.Path(name), socket.gethostname().split(".")[0]
        for part in ("state", "spool", "bin", "work"):
            (folder / part).mkdir()
        controller, node, user = free_port(), free_port(), getpass.getuser()
        conf = folder / "slurm.conf"
        conf.write_text(
            f"ClusterName=here\nSlurmctldHost={host}(127.0.0.1)\nAuthType=auth/none\nCryptoType=crypto/none\n"
            f"SlurmUser={user}\nSlurmdUser={user}\nStateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
            f"SlurmctldPort={controller}\nSlurmdPort={node}\nSlurmctldPidFile={folder}/ctld.pid\n"
            f"SlurmdPidFile={folder}/d.pid\nSlurmctldLogFile={folder}/ctld.log\nSlurmdLogFile={folder}/d.log\n"
            "ProctrackType=proctrack/pgid\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\n"
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nReturnToService=2\nSlurmdParameters=config_overrides\n"
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN\nPartitionName=all Nodes=ALL Default=YES State=UP\n"
        )
        script = folder / "work/hubproof.sbatch"
        text = (SCALE / "hubproof.sbatch").read_text()
        assert "--rate 4000" in text
        script.write_text(text.replace("--rate 4000", " ".join(SMALL)).replace("+30 seconds", "+8 seconds"))
        (folder / "bin/hubproof").symlink_to(HUBPROOF)
        environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        daemons = [subprocess.Popen([daemon, "-D"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                   for daemon in ("slurmctld", "slurmd")]
        try:
            until(lambda: "idle" in output(["sinfo", "--noheader", "--format=%t"], environment), "the node is idle", folder)
            submitted = subprocess.run(
                ["sbatch", "--parsable", "--ntasks", "2", script, url],
                env=environment, cwd=folder / "work", capture_output=True, text=True,
            )
            assert submitted.returncode == 0, submitted.stderr
            number = submitted.stdout.strip()
            state = lambda: output(["scontrol", "show", "job", number], environment)
            until(lambda: "JobState=COMPLETED" in state() or "JobState=FAILED" in state(), "the job ends", folder)
            printed = (folder / f"work/slurm-{number}.out").read_text()
            report = folder / f"work/hubproof-{number}/run.json"
            assert report.exists(), printed
            check_counts(report, 2)
        finally:
            for daemon in daemons:
                daemon.terminate()
            for daemon in daemons:
                daemon.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def output(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def until(holds, what, folder):
    end = time.monotonic() + SLURM_PATIENCE
    while not holds():
        if time.monotonic() > end:
            for log in folder.glob("*.log"):
                print(log.read_text()[-3000:])
            sys.exit(f"within {SLURM_PATIENCE} s it did not happen that {what}")
        time.sleep(0.2)


def main():
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{missing[0]} is missing: apt-get install slurm-wlm")
    hub = subprocess.Popen([HUBPROOF, "serve", "emprops"], stdout=subprocess.PIPE, text=True)
    try:
        url = next(word for word in hub.stdout.readline().split() if word.startswith("ws://"))
        kubernetes(url)
        slurm(url)
    finally:
        hub.terminate()
        hub.wait()


main()
