#!/usr/bin/env python3
"""Prints a folder with the programs that the proofs on real control planes run, building or fetching what is missing.

    fetch_scale.py [NAME ...]        all, or those named

Each program is pinned here and kept in .cache/scale/NAME-VERSION; the folder that is printed, .cache/scale/bin, has a
link to each. Those in Go come through Go's module client: `go install PACKAGE@VERSION`, or a small module of this
project that requires them, with the sums of all they are made of. The others are Debian packages, fetched with apt-get and unpacked;
nothing is installed. A kubectl in PATH is used as it is. The definitions of resources lie in the modules of those who
define them and are copied to .cache/scale/bin/crds. Without a cache all of it takes about half an hour on two cores, and 6 GB of Go's own caches.
No root. Progress goes to stderr, the path alone to stdout.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # no __pycache__ beside the scripts
import fetching  # noqa: E402
from fetching import Failure, say  # noqa: E402

CACHE = fetching.CACHE / "scale"
BIN = CACHE / "bin"
KUBERNETES = "v1.37.2"
# Packages of Go, by the name of the program that is installed.
PACKAGES = {
    "helm": ("helm.sh/helm/v4/cmd/helm", "v4.3.1"),
    "envoy-gateway": ("github.com/envoyproxy/gateway/cmd/envoy-gateway", "v1.9.1"),
    "pilot-discovery": ("istio.io/istio/pilot/cmd/pilot-discovery", "v0.0.0-20260827124520-eed52ebb66ad"),
}
# Packages of modules of this project, below e2e/scale.
MODULES = {
    "kube-apiserver": ("apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", KUBERNETES),
    "kubectl": ("apiserver", "k8s.io/kubernetes/cmd/kubectl", KUBERNETES),
    "epp": ("picker", "sigs.k8s.io/gateway-api-inference-extension/cmd/epp", "v1.5.0"),
    "prometheus": ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", "v0.316.0"),
}
# What is left out of a program that has much for others.
TAGS = {"prometheus": "remove_all_sd,enable_kubernetes_sd"}
# Programs of Debian 12: package, version, path in it. They need the C library alone.
DEBIAN = {
    "etcd": ("etcd-server", "3.4.23-4+b4", "usr/bin/etcd"),
}
# Where the modules keep the definitions of their resources.
DEFINITIONS = {
    "gateway-api": ("sigs.k8s.io/gateway-api", "v1.6.1", "config/crd/experimental"),
    "envoy-gateway": ("github.com/envoyproxy/gateway", PACKAGES["envoy-gateway"][1], "charts/gateway-helm/charts/crds/crds/generated"),
    "istio": ("istio.io/istio", PACKAGES["pilot-discovery"][1], "manifests/charts/base/files"),
    "inference": ("sigs.k8s.io/gateway-api-inference-extension", MODULES["epp"][2], "config/crd/bases"),
    "monitoring": ("github.com/prometheus-operator/prometheus-operator", "v0.85.0", "example/prometheus-operator-crd"),
}
NAMES = [*MODULES, *PACKAGES, *DEBIAN, "crds"]


def go(arguments, folder=None, **environment):
    """Runs the go command without cgo; what it says goes to stderr, what it prints is returned."""
    variables = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-trimpath", **environment}
    done = subprocess.run(["go", *arguments], cwd=folder, env=variables, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise Failure(f"go {' '.join(arguments)} has failed (see above)")
    return done.stdout


def kept(name, version, make):
    """The path of a program in the cache; make(folder) puts it there as folder/name where it is missing."""
    target = CACHE / f"{name}-{version.replace('+', '-')}"
    if not os.access(target / name, os.X_OK):
        with fetching.workplace(CACHE) as folder:
            ready = folder / "ready"
            ready.mkdir()
            make(ready)
            (ready / name).chmod(0o755)
            fetching.place(ready, target)
    return target / name


def installed(name):
    package, version = PACKAGES[name]

    def install(folder):
        say(f"building {name} {version} once")
        go(["install", f"{package}@{version}"], GOBIN=str(folder))

    return kept(name, version, install)


def built(name):
    folder, package, version = MODULES[name]
    found = shutil.which("kubectl") if name == "kubectl" else None
    if found:
        return pathlib.Path(found)

    def build(ready):
        say(f"building {name} {version} once")
        flags = "-s -w"
        if version == KUBERNETES:
            major, minor = version.removeprefix("v").split(".")[:2]
            stamp = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
            flags += "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in stamp.items())
        module = fetching.ROOT / "e2e" / "scale" / folder
        go(["build", "-mod=readonly", "-tags", TAGS.get(name, ""), "-ldflags", flags, "-o", str(ready / name), package], folder=module)

    return kept(name, version, build)


def unpacked(name):
    package, version, path = DEBIAN[name]

    def unpack(folder):
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise Failure(f"there is no {tool} here, which {name} comes with")
        say(f"fetching {name} {version} once, with apt-get")
        if not fetching.apt([], ["download", f"{package}={version}"], folder):
            options = fetching.own_lists(CACHE / "apt")
            if not fetching.apt(options, ["update"], folder) or not fetching.apt(options, ["download", package], folder):
                raise Failure(f"apt-get could not fetch {package} (see above)")
        (archive,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / "root")], check=True)
        os.replace(folder / "root" / path, folder / name)
        shutil.rmtree(folder / "root")
        archive.unlink()

    return kept(name, version, unpack)


def definitions():
    """A folder with the definitions of all projects, one folder each."""
    for name, (module, version, path) in DEFINITIONS.items():
        target = CACHE / "crds" / f"{name}-{version}"
        if not target.is_dir():
            found = json.loads(go(["mod", "download", "-json", f"{module}@{version}"]))
            with fetching.workplace(CACHE) as folder:
                ready = folder / "ready"
                ready.mkdir()
                for file in sorted((pathlib.Path(found["Dir"]) / path).glob("*.yaml")):
                    if "kind: CustomResourceDefinition\n" in file.read_text(encoding="utf-8"):
                        shutil.copyfile(file, ready / file.name)
                if not any(ready.iterdir()):
                    raise Failure(f"{module} {version} has no definitions in {path}")
                fetching.place(ready, target)
        link(target, BIN / "crds" / name)


def link(target, name):
    """Makes a link in one step, in the place of an older one; relative within the cache, which may be moved."""
    name.parent.mkdir(parents=True, exist_ok=True)
    new = name.with_name(name.name + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, name.parent) if CACHE in target.parents else target)
    os.replace(new, name)


def fetched(names):
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise Failure(f"{unknown[0]} is not one of {', '.join(NAMES)}")
    for name in names or NAMES:
        if name == "crds":
            definitions()
            continue
        path = built(name) if name in MODULES else installed(name) if name in PACKAGES else unpacked(name)
        link(path, BIN / name)
    return str(BIN)


if __name__ == "__main__":
    sys.exit(fetching.main("fetch scale", lambda: fetched(sys.argv[1:])))
