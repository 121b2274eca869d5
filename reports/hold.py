"""Holds the conversations of a self-test in tests/strangers with the correct hub, and stops at the first that goes wrong: `mutants` runs
it where the self-test runs, in Python.

    hold.py PROTOCOL FOLDER [NAME]     FOLDER: of hub.py and selftest.py; NAME: a conversation to begin with

Prints what went wrong and, last, the name of the conversation, and exits with 1.
"""
import asyncio, sys


def ordered(names, first):
    return sorted(names, key=lambda name: name != first)


async def airavata(test, first):
    async with test.HubProcess() as hub:
        for name in ordered(test.TESTS, first):
            yield name, await test.talk(hub, name)


async def concierge(test, first):
    for limit, timed in ((test.LONG, False), (test.SHORT, True)):
        async with test.HubProcess("--identify-timeout", str(limit)) as hub:
            await test.learn_base(hub)
            for name in ordered(test.TALKS, first):
                if (name in test.TIMED) == timed:
                    yield name, await test.converse(hub, name)


async def emprops(test, first):
    async with test.HubProcess() as url:
        for name in ordered(test.CONVERSATIONS, first):
            yield name, await test.hold(test.CONVERSATIONS[name][0], url, 12)


async def gator(test, first):
    async with test.Hub([], test.SECONDS_RIGHT) as hub:
        for name in ordered(test.CASES, first):
            await hub.control("reset")
            yield name, await test.converse(hub, name)


async def qi(test, first):
    async with test.House() as hub:
        try:
            await test.examples(hub)
        except test.Wrong as wrong:
            yield "examples", wrong
        for name in ordered(test.TALKS, first):
            yield name, await hub.outcome(name)


async def hold(conversations):
    async for name, wrong in conversations:
        if wrong:
            return name, str(wrong)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.path.insert(0, sys.argv[2])
    import selftest

    first = sys.argv[3] if len(sys.argv) > 3 else None
    try:
        wrong = asyncio.run(hold(globals()[sys.argv[1]](selftest, first)))
    except Exception as error:
        wrong = "-", repr(error)
    if wrong:
        print(wrong[1], wrong[0], sep="\n", flush=True)
        sys.exit(1)
