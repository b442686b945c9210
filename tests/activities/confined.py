"""Runs what could eat the machine in a process of its own that may take a second and 64 MB, and is killed beyond."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]

RUNNER = """
import json, os, resource, sys
from activities.mail import compose
from activities.templates import TemplateBroken, check, render

def tried(deed, text):
    values = {"lead": {"name": "Jo", "employees": 10**15}}
    try:
        if deed == "run":
            return str(exec(text))
        if deed == "check":
            return "; ".join(problem.said for problem in check(text))
        if deed == "compose":
            return str(len(compose("A subject", text, values).html))
        return str(len(render(text, values)))
    except TemplateBroken as broken:
        return broken.problems[0].said

def confined(deed, text):
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        with open("/proc/self/statm") as sizes:
            size = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (size + 64 * 2**20, size + 64 * 2**20))
        resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
        os.write(theirs, tried(deed, text).encode()[:500])
        os._exit(0)
    os.close(theirs)
    with open(mine, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitpid(child, 0)[1], said

deeds = json.load(sys.stdin)
print(json.dumps([confined(deed, text) for deed, text in deeds]))
"""


def confined(deed: str, texts: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Do one thing with each text; returns how its process ended (0: by itself) and what it said, by name."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([(deed, text) for text in texts.values()]),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    return {name: (status, said) for name, (status, said) in zip(texts, json.loads(done.stdout), strict=True)}
