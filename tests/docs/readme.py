#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""readme.py <root>: does what the README says, as a new user would: in an empty folder, with its commands as they stand.

The whole program is saved under the name that the compiler is given; what it prints must be what the comments behind the
commands say. Then a CMake project of a user's is made of that program and each ```cmake block of the README and of install.md."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FIRST = "txhooks/examples/run"  # installs what is missing and runs all examples: has a test of its own


def run(command, folder):
    done = subprocess.run(["bash", "-c", command], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"{command}\n{done.stdout}failed: {done.returncode}")
    return done.stdout


def expect(expected, printed):
    if expected != printed:
        sys.exit(f"expected:\n{expected}printed:\n{printed}")


def code(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def main():
    root = Path(sys.argv[1]).resolve()
    readme, install = root / "README.md", root / "examples/guide/install.md"
    [program] = (block for block in code(readme, "cpp") if "int main()" in block)
    [commands] = (block for block in code(readme, "sh") if "./hello" in block)
    output = "".join(line[2:] + "\n" for line in commands.splitlines() if line.startswith("# "))

    with tempfile.TemporaryDirectory(prefix="txhooks_readme_") as name:
        folder = Path(name)
        (folder / "txhooks").symlink_to(root)
        (folder / "hello.cpp").write_text(program)
        [first, *rest] = (line for line in commands.splitlines() if not line.startswith("#"))
        if first.split()[0] != FIRST or not os.access(folder / FIRST, os.X_OK):
            sys.exit(f"the first command is not {FIRST}: {first}")
        for command in rest:
            print(command)
            expect(output, run(command, folder))

        run(f"cmake -S txhooks -B made -DTXHOOKS_BUILD_TESTS=OFF -DTXHOOKS_BUILD_EXAMPLES=OFF && "
            f"cmake --install made --prefix {folder}/prefix", folder)
        for number, block in enumerate(sorted({*code(readme, "cmake"), *code(install, "cmake")})):
            print(block)
            project = folder / f"project{number}"
            project.mkdir()
            for linked in ("txhooks", "hello.cpp"):
                (project / linked).symlink_to(folder / linked)
            (project / "CMakeLists.txt").write_text(
                "cmake_minimum_required(VERSION 3.16)\nproject(app LANGUAGES CXX)\nadd_executable(app hello.cpp)\n"
                f"{block}target_link_libraries(app PRIVATE SQLiteCpp sqlite3)\n")
            run(f"cmake -B build -DCMAKE_PREFIX_PATH={folder}/prefix && cmake --build build", project)
            expect(output, run("build/app", project))
    print("as the README says")


main()
