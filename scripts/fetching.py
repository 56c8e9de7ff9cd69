"""What the scripts fetch_*.py have in common.

Each of them prints the path of a program that the tests or `make run` need. A
program that is here already is used when its version fits; otherwise a pinned one
is fetched, checked against its hash, and put into .cache in one step. Progress goes
to stderr, the path alone to stdout. Needs nothing but Python 3.9.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"


class Failure(Exception):
    """An end that is explained to the user in one sentence."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def main(name, path):
    """Prints what path() returns; the exit status of the script."""
    try:
        print(path())
    except (Failure, OSError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile, KeyError) as err:
        say(f"{name}: {err}")
        return 1
    return 0


def machine():
    """The architecture of this machine, as wheels and triples name it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def version_of(binary, pattern, option="--version"):
    """The version that a program reports, as numbers; empty when the pattern is not in its answer.

    The pattern has a group for each number.
    """
    try:
        out = subprocess.run(
            [str(binary), option], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(pattern, out)
    return tuple(int(n) for n in found.groups()) if found else ()


def installed(variable, names, fits, needed, path=None):
    """A program that is on this machine already, or None.

    One that the environment variable names must fit; one in PATH is used if it does.
    """
    named = os.environ.get(variable, "")
    if named:
        found = shutil.which(named)
        if not found:
            raise Failure(f"{variable} names {named}, which is not an executable file")
        if not fits(found):
            raise Failure(f"{variable} names {found}, which is not {needed}")
        return found
    for name in names:
        found = shutil.which(name, path=path)
        if found and fits(found):
            return found
        if found:
            say(f"{found} is not {needed}: not used")
    return None


@contextlib.contextmanager
def workplace(cache):
    """A folder beside the result, so that a rename puts it in place in one step."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(cache), prefix="fetch-") as name:
        yield pathlib.Path(name)


def place(folder, target):
    """Puts a folder in the place of the target."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder, target)


def python_with_pip():
    """A Python that has pip: this one, or a virtual environment made for it."""

    def has_pip(python):
        command = [str(python), "-m", "pip", "--version"]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    if has_pip(sys.executable):
        return sys.executable
    home = CACHE / "envoy" / "venv"
    python = home / "bin" / "python3"
    if python.exists() and has_pip(python):
        return str(python)
    say("python3 has no pip: making a virtual environment under .cache")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], stdout=sys.stderr).returncode != 0:
        raise Failure("python3 has neither pip nor venv: install one of them")
    return str(python)


def wheel(folder, requirement, digest, platform_tag, remedy):
    """A wheel, fetched into the folder and verified.

    platform_tag is as "manylinux_2_28_x86_64"; remedy ends the message of a failure.
    """
    one = folder / "requirements.txt"
    one.write_text(f"{requirement} --hash=sha256:{digest}\n", encoding="utf-8")
    command = [
        python_with_pip(), "-m", "pip", "download", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:", "--quiet",
        # Said explicitly, so that neither an old pip nor the version of this Python refuses a wheel that has no Python code we run.
        "--platform", platform_tag, "--python-version", "3.12", "--implementation", "py", "--abi", "none",
        "--dest", str(folder), "--requirement", str(one),
    ]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise Failure(f"pip could not fetch {requirement} (see above). Behind a proxy or a mirror set pip's own options, or {remedy}")
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Failure(f"pip left {len(wheels)} wheels, one was expected")
    same(digest, hashlib.sha256(wheels[0].read_bytes()).hexdigest(), f"the SHA-256 of {wheels[0].name}")
    return wheels[0]


def apt(options, arguments, folder):
    """Runs apt-get; what it says goes to stderr."""
    return subprocess.run(apt_command(options, arguments), cwd=folder, stdout=sys.stderr, stderr=sys.stderr).returncode == 0


def apt_command(options, arguments):
    command = ["apt-get", "-q", "-o", "Debug::NoLocking=1"]
    if os.geteuid() == 0:
        command += ["-o", "APT::Sandbox::User=root"]  # or it complains that another user cannot write here
    return command + options + arguments


def own_lists(folder):
    """Options that make apt-get use lists of packages in that folder."""
    for sub in ("lists/partial", "archives/partial"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}"]


def same(want, got, what):
    """Fails where a digest is another one."""
    if got != want:
        raise Failure(f"{what} is {got}, {want} was expected")


def member(archive, name, binary):
    """Unpacks one program of a zip file."""
    with zipfile.ZipFile(archive) as files, files.open(name) as packed, open(binary, "wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())
    binary.chmod(0o755)
