"""Tests of what the reports compute from their measurements: python3 -m unittest discover -s reports"""
import ast, importlib.machinery, importlib.util, json, os, sys, tempfile, unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import mutate, rounds, stranger_hubs


def program(name):
    """Returns a report's program, which has no suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(HERE, name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


peers, floor, mutants = program("peers"), program("floor"), program("mutants")


class Bootstrap(unittest.TestCase):
    def test_the_interval_of_equal_ratios_is_a_point(self):
        self.assertEqual(rounds.bootstrap([(2, 1), (4, 2), (8, 4)]), (2, 2, 2))

    def test_the_interval_holds_the_median_and_stays_within_the_ratios(self):
        ratio, low, high = rounds.bootstrap([(number, 10) for number in range(1, 21)])
        self.assertEqual(ratio, 1.05)
        self.assertTrue(0.1 < low < ratio < high < 2, (low, high))

    def test_one_outlier_of_twenty_does_not_move_the_interval(self):
        calm = [(100 + number % 3, 100) for number in range(20)]
        _, low, high = rounds.bootstrap([*calm[:-1], (1000, 100)])
        self.assertTrue(1.0 <= low <= high <= 1.02, (low, high))

    def test_the_interval_of_more_pairs_is_narrower(self):
        def width(pairs):
            _, low, high = rounds.bootstrap(pairs)
            return high - low
        pairs = [(100 + number * 7 % 40, 100) for number in range(10)]
        self.assertLess(width(pairs * 10), width(pairs))

    def test_the_interval_covers_the_true_median_as_often_as_it_claims(self):
        import random
        dice, covered = random.Random(7), 0
        for _ in range(60):
            _, low, high = rounds.bootstrap([(dice.lognormvariate(0, 0.2), 1) for _ in range(20)], draws=200)
            covered += low <= 1 <= high
        self.assertTrue(52 <= covered <= 60, covered)


class Kept(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "reports", "x.jsonl")

    def opened(self):
        kept = rounds.Rounds("no such report")
        kept.path, kept.found = self.path, {}
        if os.path.exists(self.path):
            with open(self.path) as file:
                for line in file:
                    kept._keep(json.loads(line))
        return kept

    def test_a_later_run_continues_with_what_is_missing(self):
        self.opened().add(("rate", 100, 0), 5.0, 0.01)
        later = self.opened()
        self.assertFalse(later.is_missing("rate", 100, 0))
        self.assertTrue(later.is_missing("rate", 100, 1))
        self.assertEqual(later.get("rate", 100, 0), 5.0)

    def test_the_less_disturbed_of_two_measurements_counts(self):
        kept = self.opened()
        kept.add(("a",), "noisy", 0.5)
        self.assertTrue(kept.is_missing("a", repeat=True))
        kept.add(("a",), "quiet", 0.02)
        kept.add(("a",), "noisier", 0.9)
        self.assertEqual((kept.get("a"), kept.disturbed("a")), ("quiet", 0.02))
        self.assertFalse(kept.is_missing("a", repeat=True))
        self.assertEqual(self.opened().get("a"), "quiet")


class Outputs(unittest.TestCase):
    """What the parsers read, in files as the tools write them."""

    def folder(self, name, text):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return folder.name

    def test_hubproof(self):
        told = {"count": 3, "mean_ms": 0.3, "p50_ms": 0.2, "p90_ms": 0.4, "p99_ms": None, "max_ms": 0.9}
        folder = self.folder("report.json", json.dumps({"times": {"echo.response": told}}))
        self.assertEqual(peers.Hubproof("hubproof").times(folder, ""),
                         {"p50": 0.2, "p90": 0.4, "p99": None, "mean": 0.3, "max": 0.9, "count": 3})

    def test_locust(self):
        folder = self.folder("report_stats.csv", """\
Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%
WS,echo,300,0,85,75.19499866335536,0.30347000574693084,331.7602790048113,192.9,118.2,0.0,85,110,120,130,170,180,250,260,330,330,330
,Aggregated,301,0,85,75.2,0.3,331.7,192.9,118.2,0.0,86,110,120,130,170,180,250,260,330,330,330
""")
        self.assertEqual(peers.Locust().times(folder, ""),
                         {"p50": 85, "p90": 170, "p99": 260, "mean": 75.19499866335536, "max": 331.7602790048113, "count": 300})

    def test_k6(self):
        took = {"med": 1, "p(90)": 3, "p(99)": 68.04, "max": 89, "count": 300, "avg": 3.3}
        folder = self.folder("report.json", json.dumps({"metrics": {"took": took}}))
        self.assertEqual(peers.K6().times(folder, ""), {"p50": 1, "p90": 3, "p99": 68.04, "mean": 3.3, "max": 89, "count": 300})

    def test_artillery(self):
        took = {"min": 0.2, "max": 291.6, "count": 528, "mean": 22.5, "p50": 5.6, "median": 5.6, "p75": 30.3, "p90": 63.4, "p95": 100.5, "p99": 156, "p999": 278.7}
        folder = self.folder("report.json", json.dumps({"aggregate": {"summaries": {"took": took}, "counters": {"vusers.completed": 1}}}))
        self.assertEqual(peers.Artillery().times(folder, ""), {"p50": 5.6, "p90": 63.4, "p99": 156, "mean": 22.5, "max": 291.6, "count": 528})
        self.assertFalse(peers.Artillery().accuses(folder, "", 0))

    def test_artillery_accuses_when_a_user_does_not_complete(self):
        for counters in ({"vusers.completed": 1, "errors.Failed capture or match": 1}, {"vusers.failed": 1}):
            folder = self.folder("report.json", json.dumps({"aggregate": {"counters": counters}}))
            self.assertTrue(peers.Artillery().accuses(folder, "", 0), counters)

    def test_tsung_combines_its_intervals(self):
        log = """\
# stats: dump at 1795717500
stats: request 70 11.6 13.8 46.4 0.17 0 0
stats: tr_took 60 12.0 16.4 46.8 0.25 0 0
# stats: dump at 1795717510
stats: tr_took 40 2.0 1.4 9.5 0.25 12.0 60
"""
        self.assertEqual(peers.tsung_times(log), {"mean": 8.0, "max": 46.8, "count": 100})
        with self.assertRaises(ValueError):
            peers.tsung_times("# stats: dump at 1795717500\n")

    def test_tsung_accuses_of_a_wrong_answer_and_of_none(self):
        with open(os.path.join(HERE, "peers-scripts", "exchanges.json")) as file:
            answers = sum(expected is not None for _, expected in json.load(file))
        for lines, accuses in ((f"stats: match {answers} {answers}\n", False), (f"stats: match 1 {answers - 1}\n", True),
                               (f"stats: match 1 {answers}\nstats: nomatch 1 1\n", True), ("", True)):
            folder = self.folder(os.path.join("log", "20260101-0000", "tsung.log"), lines)
            self.assertEqual(peers.Tsung().accuses(folder, "", 0), accuses, lines)

    def test_the_pattern_of_an_answer_takes_its_members_in_any_order_and_no_other_value(self):
        import re
        pattern = peers.pattern({"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"})
        good = '{"id": "1", "error": {"message": "Method not found", "code": -32601}, "jsonrpc": "2.0"}'
        self.assertTrue(re.search(pattern, good))
        for bad in (good.replace("-32601", "-32600"), good.replace('"1"', "1"), good.replace('"2.0"', "2.0"), f"[{good}]", "{}"):
            self.assertIsNone(re.search(pattern, bad), bad)


class Pages(unittest.TestCase):
    def test_the_page_of_floor_has_an_interval_for_each_ratio_and_a_fault_beyond_a_bound(self):
        kept = rounds.Rounds("no such report")
        cost = {"a0": 4.0, "a": 4.0, "t": 6.0, "b": 4.0, "c": 8.0}
        kept.found = {json.dumps([10, connections, number, subject]): {"value": cost[subject] + number * (subject == "c"), "disturbed": 0.5 * (number == 0)}
                      for connections in floor.CONNECTIONS for number in range(3) for subject in floor.SUBJECTS}
        text, faults = floor.page(kept, 3, 10)
        self.assertEqual(text.count("| `c/a` | 2.25 | 2.00 to 2.50 | 1.5 |"), 2, text)
        self.assertEqual(faults, ["c/a on 100 connections: 2.00 to 2.50, more than 1.5", "c/a on 1000 connections: 2.00 to 2.50, more than 1.5"])
        self.assertIn("more than 5% in 10 of 30", text)

    def test_a_rate_that_a_tool_misses_is_shown_as_not_reached(self):
        kept = rounds.Rounds("no such report")
        one = {"rate": 100.0, "cpu_us": 50.0, "switches": 2.0, "hub_us": 20.0, "times": {"p50": 0.2, "p99": 0.4}}
        for target in peers.RATES:
            for number in range(2):
                kept.found[json.dumps(["rate", target, number, "hubproof"])] = {"value": {**one, "rate": target or 90_000.0}, "disturbed": 0}
                kept.found[json.dumps(["rate", target, number, "k6"])] = {"value": {**one, "cpu_us": 100.0}, "disturbed": 0}
        lines, plot = peers.rate_rows(kept, {"hubproof": None, "k6": None}, 2)
        rows = [line for line in lines if line.startswith("| k6")]
        self.assertEqual(["not reached" in row for row in rows], [False, True, True, False], rows)
        self.assertTrue(all("2.00 (2.00 to 2.00)" in row for row in rows), rows)
        self.assertEqual([point[4] for point in plot["cpu"]["k6"]], [True, False, False, True])


class Mutating(unittest.TestCase):
    def changes(self, body, switches=()):
        """Returns the operator and the changed line of each mutant of a function."""
        source = "def f(x):\n" + "\n".join(f"    {line}" for line in body.splitlines())
        found = mutate.mutants(source, switches)
        for mutant in found:
            self.assertNotEqual(ast.unparse(ast.parse(source)), mutant.text())
        return {(mutant.operator, mutant.difference()[1]) for mutant in found}

    def test_each_operator_changes_its_kind_of_place(self):
        for body, expected in [
            ("while x: g(x)", {("negate", "while not x:"), ("drop", "pass")}),
            ("return [y for y in x if not y]", {("negate", "return [y for y in x if y]")}),
            ("return x < y", {("compare", "return x <= y")}),
            ("return x or y", {("and-or", "return x and y")}),
            ("return g(7, True)", {("constant", "return g(8, True)"), ("constant", "return g(7, False)")}),
            ("return x - y", {("plus-minus", "return x + y")}),
            ("x.y = z", {("drop", "pass")}),
            ("x.clear()", {("not-cleared", "pass")}),
            ("return x.pop(y, None)", {("not-cleared", "return x.get(y, None)")}),
            ("return {'a': x, 'b': y}", {("member", "return {'b': y}"), ("member", "return {'a': x}"), ("swap", "return {'b': x, 'a': y}")}),
            ("return dict(a=x)", {("member", "return dict()")}),
            ("return x[y:]", {("slice", "return x[y + 1:]")}),
        ]:
            self.assertEqual(self.changes(body), expected, body)

    def test_no_mutant_leaves_a_name_unbound_or_turns_on_a_planted_bug(self):
        self.assertEqual(self.changes("y = x\nreturn 'a' + y"), set())
        self.assertEqual(self.changes("if self.has('planted'): return x\nreturn self.bug or x\n", {"planted"}), set())

    def test_an_id_names_a_mutant_while_other_functions_change(self):
        source = "def f(x):\n    g(1)\n    g(2)\n"
        ids = [mutant.id for mutant in mutate.mutants(source)]
        self.assertEqual(len(set(ids)), 4, ids)
        self.assertEqual([mutant.id for mutant in mutate.mutants("def e(x):\n    g(1)\n" + source)][2:], ids)
        self.assertEqual(len(set(ids) & {mutant.id for mutant in mutate.mutants(source.replace("2", "3"))}), 2)

    def test_a_place_that_stryker_describes_is_replaced(self):
        source = "const a = 1;\nif (x) {\n  g('planted');\n}\nif (y) g();\n"
        described = [{"number": number, "operator": "BlockStatement", "line": line, "from": source.index(old), "to": source.index(old) + len(old), "replacement": new}
                     for number, line, old, new in (("0", 5, "y", "true"), ("1", 2, "{\n  g('planted');\n}", "{}"))]
        found = mutate.node_mutants(source, described)
        self.assertEqual([mutant.difference() for mutant in found], [("if (y) g();", "if (true) g();"), ("if (x) { g('planted'); }", "if (x) {}")])
        self.assertEqual(found[0].text(), source.replace("y", "true"))
        self.assertEqual([mutant.id for mutant in mutate.node_mutants(source, described, {"planted"})], [found[0].id])

    def test_the_order_of_a_seed_does_not_depend_on_the_other_mutants(self):
        found = mutate.mutants("def f(x):\n" + "".join(f"    g({number})\n" for number in range(9)))
        order, part = mutants.ranked(found, 1), mutants.ranked(found[::2], 1)
        self.assertEqual([mutant for mutant in order if mutant in part], part)
        self.assertNotEqual(order, mutants.ranked(found, 2))

    def test_a_row_counts_what_is_noticed_excused_missed_and_in_time(self):
        runs = {"a": {"code": 1, "seconds": 31.0, "first": 3.0}, "b": {"code": 4, "seconds": 29.0, "first": 4.0}}
        runs |= {id: {"code": code, "seconds": 5.0, "first": None} for id, code in (("c", 0), ("d", 3), ("e", 0))}
        text, figures = mutants.row("`hub`", runs, dict.fromkeys(runs, 5.0), {"e": "equivalent: nothing changes", "a": "open: noticed all the same"})
        self.assertEqual(figures, {"mutants": 5, "noticed": 2, "excused": 1, "missed": 2, "in_time": 4})
        self.assertEqual(text, "| `hub` | 5.0 s | 5 | 2 | 1 | 2 (1) | 50 % | 3.5 s | 5.0 s | 31.0 s | 80 % |")
        self.assertTrue(mutants.in_time(31, 10.4))

    def test_the_page_shows_each_version_and_why_a_mutant_is_not_noticed(self):
        measured = {"version": "1", "jobs": 2, "machine": "a machine", "load": 1.0, "correct": {"q": 5.0}, "runs": {"q": {"f/drop/0/ab": {"code": 0, "seconds": 5.0, "first": None}}}}
        kept = {"measured": [measured, {**measured, "version": "2"}], "why": {"q": {"f/drop/0/ab": "open: either"}}}
        text = mutants.page(kept, {("q", "f/drop/0/ab"): ("g(a | b)", "pass")})
        self.assertEqual([line for line in text.splitlines() if line.startswith("## ")], ["## 1", "## 2", "## By operator", "## Not noticed"])
        self.assertIn("| `q` | `f/drop/0/ab` | `g(a \\| b)` | `pass` | missed | open: either |", text)

    def test_a_program_beyond_its_limit_ends_with_all_that_it_started(self):
        # The program it starts shares its output, which would not end before that program does.
        script = """
import subprocess, threading, time
thread = threading.Thread(target=lambda: (subprocess.Popen(['sleep', '600']), print('started', flush=True), time.sleep(600)), daemon=True)
thread.start()
time.sleep(600)
"""
        code, output = stranger_hubs.completed([sys.executable, "-c", script], 1)
        self.assertEqual((code, output.splitlines()[0]), (124, "started"))


if __name__ == "__main__":
    unittest.main()
