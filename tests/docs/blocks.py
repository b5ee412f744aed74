#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""blocks.py <root>: every block of code in the README and the guide stands in a program that is compiled and run.

- ```cpp, ```sql: its lines follow each other in one program that the page links to, or that stands beside it. Spaces do not
  count. A blank line may stand for lines that are left out; nothing else may.
- ```sh: of each command the program is there.
- ```cmake: tried by readme.py. Anything else is not checked: it is no code.

And the README is no longer than somebody reads: 180 lines, 1,700 words, with code by line 10."""

import re
import shutil
import sys
from pathlib import Path


def blocks(page):
    """The language, the first line's number and the lines of each block."""
    language = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"\s*```(\w*)$", line)
        if fence and language is None:
            language, first, lines = fence[1], number + 1, []
        elif fence:
            yield language, first, lines
            language = None
        elif language is not None:
            lines.append(line)


def squeezed(lines):
    return [" ".join(line.split()) for line in lines]


def pieces(lines):
    """What stands between blank lines."""
    piece = []
    for line in [*squeezed(lines), ""]:
        if line:
            piece.append(line)
        elif piece:
            yield piece
            piece = []


def stands_in(lines, program):
    """Whether the pieces are there one behind the other."""
    there = [line for line in squeezed(program.read_text().splitlines()) if line]
    at = 0
    for piece in pieces(lines):
        found = (i for i in range(at, len(there)) if there[i : i + len(piece)] == piece)
        at = next(found, -1)
        if at < 0:
            return False
        at += len(piece)
    return True


def programs(page):
    beside = page.with_suffix(".cpp")
    linked = [page.parent / link for link in re.findall(r"\]\(([^)#]*\.cpp)\)", page.read_text())]
    return [program for program in [beside, *linked] if program.exists()]


def main():
    root = Path(sys.argv[1])
    checked = wrong = 0
    for page in [root / "README.md", *sorted((root / "examples/guide").glob("*.md"))]:
        for language, number, lines in blocks(page):
            what = ""
            if language in ("cpp", "sql"):
                if not any(stands_in(lines, program) for program in programs(page)):
                    what = "these lines are in no program that the page names"
            elif language == "sh":
                for command in re.split(r"\n|&&", "\n".join(lines)):
                    program = (command.split() or ["#"])[0]
                    made_here = program.startswith("./") and f"-o {program[2:]}" in "\n".join(lines)
                    path = root / program.removeprefix("txhooks/").removeprefix("./")
                    if program[0] != "#" and not made_here and not shutil.which(program) and not path.exists():
                        what = f"there is no {program}"
            else:
                continue
            checked += 1
            if what:
                wrong += 1
                print(f"{page.relative_to(root)}:{number}: {what}")
    readme = (root / "README.md").read_text()
    lines, words, code = readme.count("\n"), len(readme.split()), readme[: readme.index("```")].count("\n") + 1
    if lines > 180 or words > 1700 or code > 10:
        wrong += 1
        print(f"README.md: {lines} lines, {words} words, the first code in line {code}")
    print(f"{checked} blocks, {wrong} wrong")
    return 1 if wrong or checked == 0 else 0


sys.exit(main())
