#!/usr/bin/env python3
"""Gives a Docker Engine stand-ins for the base images of deploy/Dockerfile and docker-compose.yaml.

    scripts/base_images.py IMAGE=KIND [IMAGE=KIND ...]

They are made of this machine's programs, not pulled: a test of our own files needs
the names of the images and what is used in them, and no registry. KIND is

    busybox   a shell and its tools: alpine
    go        Go, with the modules of go.mod and a cache of compiled packages
    rust      cargo, a C linker and Python
    envoy     the Envoy that DIR/envoy of fetch_envoy.py is
    redis     the Redis or Valkey of fetch_redis.py
    prometheus  Debian's, as fetch_scale.py has it

The engine is the one that DOCKER_HOST names, its client the one of fetch_docker.py.
"""

import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetch_docker  # noqa: E402
import fetch_envoy  # noqa: E402
import fetch_redis  # noqa: E402
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

COMPILED = fetching.CACHE / "scale" / "go-build"
APPLETS = "sh cat chmod chown cp cut date dirname echo env false find grep head id kill ls mkdir mv printf pwd readlink rm sed sleep sort stat tail test touch tr true uname wc wget xargs".split()


class Image:
    """The root of an image, written as a tar file while it is put together."""

    def __init__(self, out):
        self.tar = tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT)
        self.names = set()

    def folder(self, path, mode=0o755):
        self.entry(path, tarfile.DIRTYPE, mode)

    def link(self, path, target):
        self.entry(path, tarfile.SYMTYPE, 0o777, target)

    def entry(self, path, kind, mode, target=""):
        name = path.strip("/")
        if name in self.names:
            return
        self.names.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname = kind, mode, target
        self.tar.addfile(info)

    def text(self, path, content):
        info = tarfile.TarInfo(path.strip("/"))
        info.size, info.mode = len(content), 0o644
        self.tar.addfile(info, io.BytesIO(content.encode()))

    def copy(self, source, path=None, without=()):
        """A file, or a folder without some of its children, under the same path or another one."""
        source, path = pathlib.Path(source), str(path or source).strip("/")
        if path in self.names:
            return
        self.names.add(path)
        if source.is_dir() and not source.is_symlink():
            for child in sorted(source.iterdir()):
                if child.name not in without:
                    self.copy(child, f"{path}/{child.name}")
            return
        info = self.tar.gettarinfo(str(source), path)
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if info.type == tarfile.LNKTYPE:  # each file by itself
            info.type, info.size = tarfile.REGTYPE, source.stat().st_size
        if not info.isreg():
            self.tar.addfile(info)
            return
        with open(source, "rb") as content:
            self.tar.addfile(info, content)

    def program(self, source, path=None):
        """A program, and the libraries that it is linked with."""
        self.copy(os.path.realpath(source), path or source)
        found = subprocess.run(["ldd", str(source)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True).stdout
        for library in re.findall(r"(/\S+) \(0x", found):
            self.copy(os.path.realpath(library), under_usr(library))

    def system(self):
        """What every image has: a shell, a place for temporary files, users, certificates."""
        for name in ("bin", "sbin", "lib", "lib64"):
            self.link(name, f"usr/{name}")
        self.folder("tmp", 0o1777)
        self.folder("root", 0o700)
        self.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        self.text("etc/group", "root:x:0:\nnobody:x:65534:\n")
        self.copy(os.path.realpath("/etc/ssl/certs/ca-certificates.crt"), "etc/ssl/certs/ca-certificates.crt")
        # Not the wrapper, which finds what lies beside it.
        self.copy(pathlib.Path(fetch_docker.fetched()).parent / "root" / "bin" / "busybox", "usr/bin/busybox")
        for name in APPLETS:
            self.link(f"usr/bin/{name}", "busybox")


def under_usr(path):
    """A path as it is where /bin and /lib are links into /usr."""
    return path if path.startswith("/usr/") else "/usr" + path


def busybox(image):
    image.system()


def go(image):
    image.system()
    ask = subprocess.run(["go", "env", "GOROOT", "GOMODCACHE"], cwd=fetching.ROOT, stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.split()
    image.copy(ask[0], "usr/local/go", without=("test", "doc", "api"))
    modules = pathlib.Path(ask[1]) / "cache" / "download"
    subprocess.run(["go", "mod", "download"], cwd=fetching.ROOT, stdout=sys.stderr, check=True)
    for line in (fetching.ROOT / "go.sum").read_text(encoding="utf-8").splitlines():
        module, version = line.split()[:2]
        version, _, _ = version.partition("/")
        escaped = re.sub("[A-Z]", lambda m: "!" + m.group().lower(), module)
        for kind in ("info", "mod", "zip"):
            if (modules / escaped / "@v" / f"{version}.{kind}").exists():
                image.copy(modules / escaped / "@v" / f"{version}.{kind}", f"modules/{escaped}/@v/{version}.{kind}")
    # As the Dockerfile builds it; in the image only what has changed since is compiled again.
    say("compiling the Go programs once, for the image's cache")
    env = dict(os.environ, CGO_ENABLED="0", GOCACHE=str(COMPILED))
    subprocess.run(["go", "build", "-trimpath", "-o", os.devnull, "./cmd/tollgate", "./launcher"], cwd=fetching.ROOT, env=env, stdout=sys.stderr, check=True)
    image.copy(COMPILED, "cache")


def rust(image):
    image.system()
    root = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.strip()
    for name in ("cargo", "rustc"):
        image.program(f"{root}/bin/{name}", f"usr/local/rust/bin/{name}")
    image.copy(os.path.realpath(root) + "/lib", "usr/local/rust/lib")
    image.program("/usr/bin/python3")
    version = subprocess.run(["/usr/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"], stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.strip()
    image.copy(f"/usr/lib/{version}", without=("test", "idlelib", "lib2to3", "__pycache__", "dist-packages"))
    image.program("/usr/bin/cc")
    of_gcc = pathlib.Path(tool("-print-libgcc-file-name")).parent
    for path in sorted(of_gcc.iterdir()):
        if path.suffix == ".o" or path.name in ("libgcc.a", "libgcc_eh.a", "libgcc_s.so"):
            image.copy(path)
    for name in ("collect2", "lto-wrapper", "ld", "as"):
        where = tool(f"-print-prog-name={name}")
        image.program(where if "/" in where else f"/usr/bin/{where}")
    plugin = of_gcc / "liblto_plugin.so"
    if plugin.exists():
        image.program(str(plugin))
    of_libc = pathlib.Path(os.path.realpath(tool("-print-file-name=libc.so"))).parent
    for pattern in ("*crt*.o", "libc.so*", "libc_nonshared.a", "libm.so*", "libmvec*", "libdl.*", "librt.*", "libpthread*", "libutil.*", "libgcc_s*", "ld-linux*"):
        for path in sorted(of_libc.glob(pattern)):
            image.copy(path)


def tool(question):
    """What gcc says about itself."""
    return subprocess.run(["/usr/bin/cc", question], stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout.strip()


def envoy(image):
    image.system()
    image.program(fetch_envoy.installed() or fetch_envoy.fetched(), "usr/local/bin/envoy")
    # Of Ubuntu, on which the image is made; a library of Rust needs it.
    library = tool("-print-file-name=libgcc_s.so.1")
    image.copy(os.path.realpath(library), under_usr(os.path.normpath(library)))


def redis(image):
    image.system()
    image.program(fetch_redis.installed() or fetch_redis.fetched(), "usr/local/bin/redis-server")


def prometheus(image):
    image.system()
    image.program(fetching.CACHE / "scale" / "bin" / "prometheus", "usr/bin/prometheus")
    image.folder("prometheus", 0o1777)
    image.folder("etc/prometheus")


# What makes the root of an image of that kind, and what the engine is told of it.
KINDS = {
    "busybox": (busybox, ["ENV PATH=/usr/local/bin:/usr/bin"]),
    "go": (go, ["ENV PATH=/usr/local/go/bin:/usr/bin", "ENV GOPROXY=file:///modules GOSUMDB=off GOTOOLCHAIN=local GOPATH=/go GOCACHE=/cache GOFLAGS=-buildvcs=false"]),
    "rust": (rust, ["ENV PATH=/usr/local/rust/bin:/usr/bin", "ENV CARGO_HOME=/usr/local/cargo"]),
    "envoy": (envoy, ["ENV PATH=/usr/local/bin:/usr/bin", 'ENTRYPOINT ["/docker-entrypoint.sh"]']),
    "prometheus": (prometheus, ["USER nobody", "ENTRYPOINT [\"/bin/prometheus\"]", "CMD [\"--config.file=/etc/prometheus/prometheus.yml\", \"--storage.tsdb.path=/prometheus\"]"]),
    "redis": (redis, ["ENV PATH=/usr/local/bin:/usr/bin"]),
}


def make(docker, name, kind):
    """Streams one image into the engine."""
    fill, told = KINDS[kind]
    command = [docker, "import"]
    for change in told:
        command += ["--change", change]
    with subprocess.Popen([*command, "-", name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as engine:
        image = Image(engine.stdin)
        fill(image)
        image.tar.close()
        engine.stdin.close()
        if engine.wait() != 0:
            raise Failure(f"the engine did not take {name}")


def main():
    if not sys.argv[1:] or any(a.partition("=")[2] not in KINDS for a in sys.argv[1:]):
        raise Failure(f"usage: base_images.py IMAGE=KIND …, of the kinds {', '.join(KINDS)}")
    docker = os.path.join(fetch_docker.fetched(), "docker")
    for argument in sys.argv[1:]:
        name, _, kind = argument.partition("=")
        say(f"making {name}")
        make(docker, name, kind)
    return f"{len(sys.argv[1:])} images"


if __name__ == "__main__":
    sys.exit(fetching.main("base images", main))
