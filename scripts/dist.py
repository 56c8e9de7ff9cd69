#!/usr/bin/env python3
"""Makes a release of the commit that is checked out, in dist/.

    make dist                      for amd64 and arm64
    make dist ARGS="--arch amd64"  for one of them
    make dist ARGS=--dirty         with uncommitted changes; the version says so

For each architecture: an archive, deb and rpm of Tollgate, deb and rpm of the
Envoy that belongs to it, and an SBOM (CycloneDX). SHA256SUMS has the digests of
all. The meter for Envoy is in it where cargo can build it for that
architecture. With DIST_SIGN_KEY, an SSH key, SHA256SUMS is signed
(SHA256SUMS.sig).

The same commit and the same compilers, which BUILD.json names, give the same
bytes: paths are trimmed, every time is the commit's, and no tool stamps a
host or a random number. Progress goes to stderr, the names of the files to stdout.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import build_meter  # noqa: E402
import fetch_envoy  # noqa: E402
import fetching  # noqa: E402
import notices  # noqa: E402
from fetching import ROOT, Failure, say  # noqa: E402

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PROGRAMS = {"tollgate": "./cmd/tollgate", "launcher": "./launcher"}
PAGES = ("README.md", "CHANGELOG.md", "SECURITY.md", "docs/*.md", "docs/moving/*.md")
EXAMPLES = ("deploy/prometheus/*.y*ml", "deploy/grafana/*.json")


def run(command, **options):
    """Runs a tool; what it says goes to stderr. Returns its output where stdout is PIPE."""
    options.setdefault("stdout", sys.stderr)
    done = subprocess.run([str(c) for c in command], cwd=str(ROOT), **options)
    if done.returncode != 0:
        raise Failure(f"{command[0]} {command[1]} has failed with {done.returncode}")
    return done.stdout.decode() if done.stdout else ""


def git(*arguments):
    return run(["git", *arguments], stdout=subprocess.PIPE).strip()


def tool(name):
    """The `go run` of a tool that Tools.mk pins."""
    found = re.search(rf"^{name}\s*:= (\S+)", (ROOT / "Tools.mk").read_text(encoding="utf-8"), re.M)
    if not found:
        raise Failure(f"Tools.mk names no {name}")
    return ["go", "run", found.group(1)]


class Release:
    """One commit, and where its files go."""

    def __init__(self, out, dirty):
        self.out = out
        changed = git("status", "--porcelain")
        if changed and not dirty:
            raise Failure(f"a release is made of a commit, and these differ from it:\n{changed}")
        source = (ROOT / "internal/version/version.go").read_text(encoding="utf-8")
        self.version = re.search(r'^const Release = "v(.*)"', source, re.M).group(1)
        self.commit = git("rev-parse", "HEAD")
        self.short = self.commit[:12] + (".dirty" if changed else "")
        self.epoch = int(git("log", "-1", "--format=%ct"))
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("GO", "CGO_")) or k in ("GOPROXY", "GOCACHE", "GOMODCACHE", "GOPATH", "GOSUMDB", "GONOSUMDB", "GOROOT")}
        self.env.update(CGO_ENABLED="0", GOOS="linux", GOFLAGS="-mod=readonly", GOAMD64="v1", SOURCE_DATE_EPOCH=str(self.epoch))
        self.host_env = {k: v for k, v in self.env.items() if k != "GOOS"}

    def build(self, arch, folder):
        """The programs and, where it can be built, the meter."""
        for name, package in PROGRAMS.items():
            # Not -buildvcs: it would stamp what git knows of tags, which another clone may not know.
            flags = f"-s -w -X tollgate/internal/version.commit={self.short}"
            run(["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", folder / name, package], env={**self.env, "GOARCH": arch})
        cargo = build_meter.cargo()
        if arch == host_arch() and cargo:
            build_meter.put(build_meter.build(cargo, False), folder)
        else:
            say(f"no meter for {arch} in this build: answers are metered by ext_proc there")

    def stage(self, arch, folder, bin_folder, host_tool):
        """All files of the package under their names."""
        run(["make", "--no-print-directory", "-s", "-o", "build", "install", "PREFIX=/usr", f"DESTDIR={folder}", f"BIN={bin_folder}", f"TOOL={host_tool}", "WITH_ENVOY=no"])
        doc = folder / "usr/share/doc/tollgate"
        for pattern in PAGES:
            for page in ROOT.glob(pattern):
                copy(page, doc / page.relative_to(ROOT))
        for pattern in EXAMPLES:
            for page in ROOT.glob(pattern):
                copy(page, doc / "examples" / page.relative_to(ROOT / "deploy"))
        copy(ROOT / "LICENSE", doc / "copyright")
        copy(ROOT / "internal/config/sample.yaml", doc / "config.sample.yaml")
        (doc / "THIRD-PARTY.txt").write_text(notices.text(list(PROGRAMS.values()), {**self.env, "GOARCH": arch}), encoding="utf-8")
        copy(ROOT / "deploy/packages/config.yaml", folder / "etc/tollgate/config.yaml")
        self.settle(folder)

    def settle(self, folder):
        """Modes and times that do not depend on who builds."""
        for path in sorted(folder.rglob("*"), reverse=True):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            os.utime(path, (self.epoch, self.epoch))

    def envoy(self, arch, folder):
        """The pinned Envoy of that architecture, with its licence."""
        binary = folder / "usr/lib/tollgate/envoy"
        binary.parent.mkdir(parents=True)
        fetch_envoy.fetch_for(MACHINES[arch], binary)
        copy(ROOT / "LICENSE", folder / "usr/share/doc/tollgate-envoy/copyright")  # Apache-2.0, as Envoy's
        self.settle(folder)

    def archive(self, arch, stage):
        """A tar of the package, with one folder at its top."""
        top = f"tollgate_{self.version}_linux_{arch}"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(stage.rglob("*")):
                name = path.relative_to(stage).as_posix()
                name = {"etc/tollgate/config.yaml": "config.yaml"}.get(name, name.removeprefix("usr/"))
                if name in ("usr", "etc", "etc/tollgate"):
                    continue
                member = tar.gettarinfo(str(path), f"{top}/{name}")
                member.uid = member.gid = 0
                member.uname = member.gname = "root"
                member.mtime = self.epoch
                with open(path, "rb") if path.is_file() else io.BytesIO() as content:
                    tar.addfile(member, content if path.is_file() else None)
        with open(self.out / f"{top}.tar.gz", "wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=self.epoch) as zipped:
            zipped.write(packed.getvalue())

    def packages(self, arch, config, stage):
        """deb and rpm of one description."""
        at = subprocess.run(["date", "-u", "-d", f"@{self.epoch}", "+%Y-%m-%dT%H:%M:%SZ"], stdout=subprocess.PIPE, check=True)
        values = {
            "ARCH": arch, "STAGE": str(stage), "VERSION": self.version, "MTIME": at.stdout.decode().strip(),
            "ENVOY_VERSION": ".".join(str(n) for n in fetch_envoy.VERSION),
        }
        text = re.sub(r"\$\{(\w+)\}", lambda m: values[m.group(1)], (ROOT / "deploy/packages" / config).read_text(encoding="utf-8"))
        description = stage.parent / f"{config}"
        description.write_text(text, encoding="utf-8")
        for packager in ("deb", "rpm"):
            run([*tool("NFPM"), "package", "--config", description, "--packager", packager, "--target", str(self.out) + "/"], env=self.host_env)

    def sbom(self, arch, folder):
        """What the programs are made of, as CycloneDX, in one file for each."""
        for name in PROGRAMS:
            out = self.out / f"{name}_{self.version}_linux_{arch}.cdx.json"
            run([*tool("CYCLONEDX"), "bin", "-json", "-noserial", "-notimestamp", "-version", f"v{self.version}", "-output", out, folder / name], env=self.host_env)

    def sums(self):
        """SHA256SUMS, BUILD.json and, with a key, the signature."""
        versions = {"go": run(["go", "version"], stdout=subprocess.PIPE).split()[2]}
        if build_meter.cargo():
            versions["rustc"] = run(["rustc", "--version"], stdout=subprocess.PIPE).strip()
        build = {"version": self.version, "commit": self.commit, "source_date_epoch": self.epoch, **versions}
        (self.out / "BUILD.json").write_text(json.dumps(build, indent=2) + "\n", encoding="utf-8")
        lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(self.out.iterdir())]
        sums = self.out / "SHA256SUMS"
        sums.write_text("".join(lines), encoding="utf-8")
        if os.environ.get("DIST_SIGN_KEY"):
            run(["ssh-keygen", "-q", "-Y", "sign", "-n", "tollgate-release", "-f", os.environ["DIST_SIGN_KEY"], sums])


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def host_arch():
    return {v: k for k, v in MACHINES.items()}.get(fetching.machine(), "")


def make(out, archs, dirty):
    """Makes everything, and returns the folder."""
    release = Release(out, dirty)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="tollgate-dist-") as work:
        work = pathlib.Path(work)
        host_tool = work / "tollgate"
        for name, package in PROGRAMS.items():
            run(["go", "build", "-buildvcs=false", "-o", work / name, package], env=release.host_env)
        for arch in archs:
            say(f"tollgate {release.version} ({release.short}) for {arch}")
            folder = work / arch
            release.build(arch, folder / "bin")
            release.stage(arch, folder / "tollgate", folder / "bin", host_tool)
            release.envoy(arch, folder / "envoy")
            release.archive(arch, folder / "tollgate")
            release.packages(arch, "tollgate.yaml", folder / "tollgate")
            release.packages(arch, "envoy.yaml", folder / "envoy")
            release.sbom(arch, folder / "bin")
    release.sums()
    return "\n".join(str(p) for p in sorted(out.iterdir()))


def main():
    parser = argparse.ArgumentParser(description="Makes a release of this commit.")
    parser.add_argument("--arch", choices=sorted(MACHINES), action="append", help="default is all")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist", help="a folder, which is replaced")
    parser.add_argument("--dirty", action="store_true", help="take uncommitted changes; the version says so")
    args = parser.parse_args()
    return fetching.main("make dist", lambda: make(args.out.resolve(), args.arch or sorted(MACHINES), args.dirty))


if __name__ == "__main__":
    sys.exit(main())
