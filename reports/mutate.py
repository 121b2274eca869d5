"""Mutants of a program: copies of it in which one place is changed. Those of Python are made here, those of JavaScript by mutate.mjs."""
import ast, copy, hashlib

SWAPPED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
           ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}


def is_text(node):
    return isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))


def is_clearing(node):
    """Whether a call takes something out of a container."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("clear", "discard", "pop", "popleft", "remove")


def is_droppable(node):
    """Whether a function without this statement still runs: no name is left unbound."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, (ast.Constant, ast.Yield, ast.YieldFrom))
    if isinstance(node, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
    return isinstance(node, (ast.AugAssign, ast.Delete, ast.Raise, ast.Continue, ast.Break))


def opposite(condition):
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
        return condition.operand
    return ast.UnaryOp(ast.Not(), condition)


def is_condition_of(node, parent):
    return isinstance(parent, (ast.If, ast.While, ast.IfExp)) and parent.test is node


def plus_one(node):
    return ast.Constant(node.value + 1) if isinstance(node, ast.Constant) else ast.BinOp(node, ast.Add(), ast.Constant(1))


def without(items, at):
    return [*items[:at], *items[at + 1:]]


def changes(node, parent):
    """Yields the name of an operator, and what stands in the place of the node in the mutant. The node is not changed."""
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, ast.Constant):
        yield "negate", changed(node, test=opposite(node.test))
    if isinstance(node, ast.comprehension):
        for at, condition in enumerate(node.ifs):
            yield "negate", changed(node, ifs=[*node.ifs[:at], opposite(condition), *node.ifs[at + 1:]])
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        # A condition that is an equality is negated already.
        if isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) or not is_condition_of(node, parent):
            yield "compare", changed(node, ops=[SWAPPED[type(node.ops[0])]()])
    if isinstance(node, ast.BoolOp):
        yield "and-or", changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.Constant) and not isinstance(parent, (ast.Slice, ast.Expr)):
        if isinstance(node.value, bool):
            yield "constant", ast.Constant(not node.value)
        elif isinstance(node.value, (int, float)):
            yield "constant", ast.Constant(node.value + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)) and not is_text(node.left) and not is_text(node.right):
        yield "plus-minus", changed(node, op=ast.Sub() if isinstance(node.op, ast.Add) else ast.Add())
    if isinstance(node, ast.stmt) and is_droppable(node):
        clears = isinstance(node, ast.Delete) or isinstance(node, ast.Expr) and is_clearing(node.value)
        yield "not-cleared" if clears else "drop", ast.Pass()
    if is_clearing(node) and node.func.attr == "pop" and len(node.args) == 2:
        yield "not-cleared", changed(node, func=changed(node.func, attr="get"))
    if isinstance(node, ast.Dict):
        for at, key in enumerate(node.keys):
            yield "member", changed(node, keys=without(node.keys, at), values=without(node.values, at))
            if at + 1 < len(node.keys) and key is not None and node.keys[at + 1] is not None:
                keys = [*node.keys[:at], node.keys[at + 1], key, *node.keys[at + 2:]]
                yield "swap", changed(node, keys=keys)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        for at in range(len(node.keywords)):
            yield "member", changed(node, keywords=without(node.keywords, at))
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            if getattr(node, bound) is not None:
                yield "slice", changed(node, **{bound: plus_one(getattr(node, bound))})


def changed(node, **fields):
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def functions(tree, prefix=""):
    """Yields the outermost functions of a module and of its classes, with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")


def header(statement):
    """Returns the lines of a statement without those of the statements inside it."""
    body = getattr(statement, "body", None)
    return range(statement.lineno, body[0].lineno if isinstance(body, list) and body[0].lineno > statement.lineno else statement.end_lineno + 1)


def places(node, statement=None, expressions=()):
    """Yields each node inside a node, with the field and the index at which its parent holds it, its statement, and the expressions
    of that statement around it."""
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            # Annotations, decorators and defaults do not belong to what a function does.
            if not isinstance(child, ast.AST) or isinstance(child, ast.arguments) or field in ("annotation", "returns", "decorator_list"):
                continue
            inner = isinstance(child, ast.stmt)
            yield node, field, index, child, child if inner else statement, () if inner else expressions
            yield from places(child, child if inner else statement, () if inner else (*expressions, child))


def mentions(node, switches):
    """Whether an expression asks for a planted bug or a variant: `self.bug`, or the name of a switch."""
    return any(isinstance(part, ast.Attribute) and part.attr in ("bug", "bugs") or isinstance(part, ast.Constant) and part.value in switches
               for part in ast.walk(node) if not isinstance(part, ast.Constant) or isinstance(part.value, str))


def is_switched(node, expressions, switches):
    """Whether a mutant of a node would turn on a planted bug or variant, or change what only such a switch reaches."""
    own = [node.test] if isinstance(node, (ast.If, ast.While)) else [node]
    return any(mentions(part, switches) for part in [*own, *(one for one in expressions if isinstance(one, (ast.BoolOp, ast.IfExp)))])


class Mutant:
    """A program in Python with one change. Its `id` (function, operator, ordinal in the function, digest of the source line) stays
    the same while other functions change. `reached_at` are the lines of the changed statement, which `was` and `now` is."""

    def __init__(self, tree, id, line, statement, place, instead):
        self.tree, self.id, self.line, self.place, self.instead = tree, id, line, place, instead
        self.operator, self.reached_at = operator_of(id), header(statement)
        self.was = ast.unparse(statement)
        with self:
            self.now = ast.unparse(instead if place[3] is statement else statement)

    def __enter__(self):
        put(*self.place[:3], self.instead)

    def __exit__(self, *_):
        put(*self.place)

    def text(self):
        """Returns the whole mutant. Mutants of one program share its tree, so threads take turns."""
        with self:
            return ast.unparse(self.tree)

    def difference(self):
        """Returns the first line in which the statement differs, as it was and as it is."""
        was, now = self.was.splitlines(), self.now.splitlines()
        return next(((a.strip(), b.strip()) for a, b in zip(was, now) if a != b), (was[-1].strip(), now[-1].strip()))


def operator_of(id):
    return id.split("/")[1]


class NodeMutant:
    """A program in JavaScript with one change. In the place of the function, its `id` has the name of the language."""

    def __init__(self, source, id, described):
        self.source, self.id, self.line, self.operator, self.reached_at = source, id, described["line"], operator_of(id), {int(described["number"])}
        self.begin, self.end, self.replacement = described["from"], described["to"], described["replacement"]

    def text(self):
        return self.source[:self.begin] + self.replacement + self.source[self.end:]

    def difference(self):
        """Returns the changed lines as they were and as they are, each as one line."""
        begin, rest = self.source.rfind("\n", 0, self.begin) + 1, self.source[self.end:].partition("\n")[0]
        was, now = (self.source[begin:self.begin] + text + rest for text in (self.source[self.begin:self.end], self.replacement))
        return " ".join(was.split()), " ".join(now.split())


def node_mutants(source, described, switches=()):
    """Returns the mutants of a program in JavaScript, as mutate.mjs describes them."""
    found, ordinals, lines = [], {}, source.splitlines()
    for one in described:
        digest = hashlib.sha256(lines[one["line"] - 1].strip().encode()).hexdigest()[:6]
        ordinal = ordinals[one["operator"], digest] = ordinals.get((one["operator"], digest), -1) + 1
        replaced = source[one["from"]:one["to"]]
        if not any(f"'{switch}'" in replaced for switch in switches) and ".bug" not in replaced:
            found.append(NodeMutant(source, f"node/{one['operator']}/{ordinal}/{digest}", one))
    return found


def mutants(source, switches=()):
    """Returns the mutants of a program in Python. `switches`: names of its planted bugs and variants, which no mutant turns on."""
    tree, lines = ast.parse(source), source.splitlines()
    found, seen = [], set()
    for name, function in functions(tree):
        if "control" in name:  # serves the hooks of tests, not clients
            continue
        ordinals = {}
        for parent, field, index, node, statement, expressions in list(places(function)):
            for operator, instead in changes(node, parent):
                ordinals[operator] = ordinals.get(operator, -1) + 1
                if is_switched(node, expressions, switches):
                    continue
                line = getattr(node, "lineno", statement.lineno)
                digest = hashlib.sha256(lines[line - 1].strip().encode()).hexdigest()[:6]
                mutant = Mutant(tree, f"{name}/{operator}/{ordinals[operator]}/{digest}", line, statement, (parent, field, index, node), instead)
                # Two operators may make the same mutant, and some change nothing.
                key = (id(statement), mutant.now)
                if mutant.now != mutant.was and key not in seen:
                    seen.add(key)
                    found.append(mutant)
    return found


def put(parent, field, index, node):
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node
