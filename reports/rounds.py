"""Interleaved measurements: what they ran on, which of them others disturbed, and what the pairs say."""
import json, os, platform, random, resource, socket, statistics, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A round in which others used more than this share of all cores, or the host took it, is measured again.
DISTURBED = 0.05


def machine():
    """Returns a description of this machine: processor, cores, memory and kernel."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown processor")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of an {model}, {memory:.0f} GiB of memory, Linux {platform.release().split('-')[0]}"


def free_port():
    """Returns a port of loopback that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Quiet:
    """Measures, while it is entered, the share of all cores that other processes used or the host took away."""

    def __enter__(self):
        self.begun = self._times()
        return self

    def __exit__(self, *_):
        busy, stolen, own, total = (after - before for before, after in zip(self.begun, self._times()))
        self.others = max(0.0, (busy - own) / total) if total else 0.0
        self.stolen = stolen / total if total else 0.0

    def share(self):
        return self.others + self.stolen

    @staticmethod
    def _times():
        """Returns seconds, of all cores together: busy, stolen, busy for this process and the children that ended, in all."""
        with open("/proc/stat") as file:
            user, nice, system, idle, waiting, interrupts, soft, stolen, *_ = (int(field) for field in file.readline().split()[1:])
        tick = os.sysconf("SC_CLK_TCK")
        busy = (user + nice + system + interrupts + soft) / tick
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return busy, stolen / tick, sum(who.ru_utime + who.ru_stime for who in used), busy + (idle + waiting + stolen) / tick


def wait_until_quiet(patience):
    """Waits, `patience` seconds at most, for half a second in which others leave the cores alone."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with Quiet() as quiet:
            time.sleep(0.5)
        if quiet.share() < DISTURBED:
            return


class Rounds:
    """The measurements of a report, one JSON object a line, in `target/reports/NAME.jsonl`. A run that was interrupted
    continues with what is missing; of two measurements of the same thing, the one that others disturbed less counts."""

    def __init__(self, name):
        self.path = os.path.join(ROOT, "target", "reports", f"{name}.jsonl")
        self.found = {}
        if os.path.exists(self.path):
            with open(self.path) as file:
                for line in file:
                    self._keep(json.loads(line))

    def _keep(self, entry):
        key = json.dumps(entry["key"])
        if key not in self.found or entry["disturbed"] <= self.found[key]["disturbed"]:
            self.found[key] = entry

    def get(self, *key):
        entry = self.found.get(json.dumps(key))
        return entry and entry["value"]

    def disturbed(self, *key):
        return self.found[json.dumps(key)]["disturbed"]

    def is_missing(self, *key, repeat=False):
        """Whether a measurement is to be made: it was not yet, or, with `repeat`, others disturbed it."""
        entry = self.found.get(json.dumps(key))
        return entry is None or repeat and entry["disturbed"] > DISTURBED

    def add(self, key, value, disturbed):
        entry = {"key": list(key), "value": value, "disturbed": round(disturbed, 4)}
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(entry) + "\n")
        self._keep(entry)

    def reset(self):
        """Forgets all measurements."""
        self.found = {}
        if os.path.exists(self.path):
            os.remove(self.path)


def median(values):
    return statistics.median(values)


def bootstrap(pairs, confidence=0.95, draws=10_000):
    """Returns the median ratio of pairs and its confidence interval: pairs are drawn again with replacement, and the interval
    holds the middle share of the medians. The same pairs give the same interval."""
    ratios = [above / below for above, below in pairs]
    dice = random.Random(1)
    medians = sorted(median(dice.choices(ratios, k=len(ratios))) for _ in range(draws))
    tail = (1 - confidence) / 2
    return median(ratios), medians[int(tail * draws)], medians[min(draws - 1, int((1 - tail) * draws))]
