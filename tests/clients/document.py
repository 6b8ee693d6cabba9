"""Runs a session from a document as it is printed there: `document.py README.md "A session"`.

Runs the "sh" blocks of the document, or of one of its sections, in one shell, and compares what they print with the "text" block
after each. A line "…" stands for any lines, and "…" within a line for any text. Ids, times and etags may differ.

Environment: as in session.sh, and JACKFIELD_EXAMPLE, JACKFIELD_PROVIDER and JACKFIELD_SOURCE, the hosts and ports of the examples.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MARK = "--- the end of block"

# The ports of the examples in the documents.
EXAMPLES = {"JACKFIELD_EXAMPLE": "localhost:8443", "JACKFIELD_PROVIDER": "localhost:8444", "JACKFIELD_SOURCE": "localhost:8445"}

# Patterns of output that differs from run to run.
VOLATILE = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"20[2-9]\d-\d\d-\d\dT[\d:.]+Z", "<time>"),
    (r'W/\\?"[^"\\]*\\?"', "<etag>"),
]


def main() -> None:
    document, *section = sys.argv[1:]
    steps = blocks(section_of(Path(document).read_text(), *section))
    assert steps, f"{document} shows no session"
    outputs = run([command for command, _ in steps])
    for (command, expected), output in zip(steps, outputs, strict=True):
        if expected is not None and not matches(expected, output):
            sys.exit(f"{document} shows\n{expected}\nand this was printed\n{output}\nby\n{command}")
    print(f"{document}: {len(steps)} steps")


def section_of(text: str, heading: str | None = None) -> str:
    if heading is None:
        return text
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def blocks(text: str) -> list[tuple[str, str | None]]:
    """The commands of a document, each with the output that it shows for them, if it shows any."""
    steps: list[tuple[str, str | None]] = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if language == "sh":
            steps.append((block, None))
        elif language == "text":
            steps[-1] = (steps[-1][0], block)
    return steps


def run(commands: list[str]) -> list[str]:
    """The output of the commands, run in sequence in the directory that the document names."""
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory, "target/release/jackfield")
        binary.parent.mkdir(parents=True)
        binary.symlink_to(Path(os.environ["JACKFIELD"]).absolute())
        Path(directory, "data").symlink_to(Path(os.environ["JACKFIELD_DATA"]).absolute())
        script = f"\necho '{MARK}'\n".join([*commands, ""]).replace("127.0.0.1:7443", os.environ["JACKFIELD_ADDRESS"])
        for name, address in EXAMPLES.items():
            script = script.replace(address, os.environ.get(name, address))
        # The blocks are those of any POSIX shell, as their mark says.
        shell = ["sh", "-u", "-c", script]
        done = subprocess.run(
            shell, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    return done.stdout.split(f"{MARK}\n")[:-1]


def matches(expected: str, output: str) -> bool:
    lines = []
    for line in normal(expected):
        lines.append(r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n")
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in normal(output))) is not None


def normal(text: str) -> list[str]:
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return [" ".join(line.split()) for line in text.splitlines()]


main()
