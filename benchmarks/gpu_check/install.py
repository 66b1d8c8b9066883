"""Install collected parts on a machine without a package index. The module needs only Python.

    parts ──join, sha256──▶ wheels ──pip, offline──▶ environment over the machine's own packages

The environment's packages take precedence over those of the Python that runs this module. Packages
that the environment lacks are imported from that Python: for example, torch is the machine's, and
numpy is the installed one.
"""

import json
import os
import platform
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.installed_packages import canonical
from benchmarks.gpu_check.parts import MANIFEST, Manifest, PartsError, difference, join, sha256_of
from benchmarks.gpu_check.runner import OURS

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("installed_packages.py")
DEVIATIONS, INSTALLED = "deviations.json", "installed.json"


def installed(parts: Path, into: Path) -> Path:
    """Return the Python of an environment with the parts; create the environment if needed.

    The environment's folder also has `deviations.json`, a list of sentences, and `installed.json`,
    with the version of each package.

    Raises:
        PartsError: the parts are damaged, for another machine or of another state of this checkout,
            or something in the resulting environment cannot be imported.
    """
    manifest = Manifest.read(parts)
    _require_fit(manifest)
    into = into.resolve()
    if into.is_relative_to(ROOT):
        raise PartsError(f"{into} is in the checkout. Name a folder outside of {ROOT}.")
    python = into / "bin" / "python"
    digest = sha256_of(parts / MANIFEST)
    if _is_made_of(into, digest):
        print(f"{into} already has these parts")
        _require_these_sources(into)
        return python
    if into.exists() and any(into.iterdir()) and not (into / "pyvenv.cfg").exists():
        raise PartsError(
            f"{into} has other files; expected a new or empty folder. Name another folder."
        )
    venv.EnvBuilder(clear=True, symlinks=True).create(into)
    _append_packages_of_this_python(into)
    wheels = into / "wheels"
    wheels.mkdir()
    print(f"Joining {len(manifest.parts)} parts", flush=True)
    files = join(manifest, parts, wheels)
    print(f"Installing {len(files)} wheels into {into}", flush=True)
    _install(python, files)
    shutil.rmtree(wheels)
    _require_these_sources(into)
    found = _probe(python, manifest)
    sentences = _deviations(manifest, found)
    _write(into / DEVIATIONS, sentences)
    _write(into / INSTALLED, {"manifest": digest, "versions": found["versions"]})
    print(f"Installed the wheels, with {len(sentences)} deviations from our pins", flush=True)
    return python


def _require_fit(manifest: Manifest) -> None:
    python, machine = "{}.{}".format(*sys.version_info), platform.machine()
    if (python, machine) != (manifest.python, manifest.machine):
        raise PartsError(
            f"The parts are for Python {manifest.python} on {manifest.machine}; this is Python "
            f"{python} on {machine}. Collect them with --python {python} --machine {machine}."
        )


def _is_made_of(into: Path, digest: str) -> bool:
    try:
        return bool(json.loads((into / INSTALLED).read_text())["manifest"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _append_packages_of_this_python(into: Path) -> None:
    """Append the package folders of this Python to the import path of the environment.

    `system-site-packages` is not sufficient: if this Python is in a virtual environment, its
    packages are not those of the system.
    """
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    folders += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    lines = [f"import site; site.addsitedir({folder!r})" for folder in dict.fromkeys(folders)]
    (_packages(into) / "packages_of_the_machine.pth").write_text("\n".join(lines) + "\n")


def _packages(environment: Path) -> Path:
    base = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_paths("venv", base)["purelib"])


def _require_these_sources(environment: Path) -> None:
    """Require that the installed transloom is the one that the results would name: the checkout."""
    packages = _packages(environment)
    for package in OURS:
        for path in sorted((packages / package).rglob("*.py")):
            ours = ROOT / path.relative_to(packages)
            if not ours.exists() or ours.read_bytes() != path.read_bytes():
                raise PartsError(
                    f"The parts have another {path.relative_to(packages)} than this checkout. "
                    "Collect the parts again, with this checkout, and copy them."
                )


def _install(python: Path, wheels: list[Path]) -> None:
    """Install wheels with the pip that is one of them, because the machine may have no pip."""
    pip = [wheel for wheel in wheels if wheel.name.startswith("pip-")]
    command = [python, "-P", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--ignore-installed", "--no-compile", "--no-cache-dir", *wheels]
    _run(python, command, "install the wheels", {"PYTHONPATH": str(*pip)})


def _probe(python: Path, manifest: Manifest) -> dict[str, Any]:
    """Import the installed packages, and return their versions and version conflicts."""
    names = [canonical(file.name.partition("-")[0]) for file in manifest.files]
    names += [name for name, package in manifest.on_machine.items() if package.pinned]
    said = _run(python, [python, "-P", PROBE, *names], "check the installed packages", {})
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    if missing := [name for name in names if name not in found["versions"]]:
        raise PartsError(
            f"This machine lacks packages that it was expected to have: {', '.join(missing)}. "
            "Collect the parts again, and name only packages of this machine with --have."
        )
    if found["failed"]:
        why = "; ".join(f"{name}: {error}" for name, error in found["failed"].items())
        raise PartsError(
            f"Some installed modules cannot be imported: {why}. If a package of this machine is "
            "too old or too new, collect the parts again with --replace numpy --replace "
            "sentencepiece --replace NAME."
        )
    return found


def _deviations(manifest: Manifest, found: dict[str, Any]) -> list[str]:
    """Return the deviations from our pins, with the versions that the machine really has."""
    on_machine = manifest.on_machine.items()
    claimed = {difference(name, package.version, package.pinned) for name, package in on_machine}
    real = [
        difference(name, found["versions"].get(name), package.pinned)
        for name, package in on_machine
    ]
    others = [sentence for sentence in manifest.deviations if sentence not in claimed]
    return [*filter(None, real), *others, *found["conflicts"]]


def _run(python: Path, command: list[Any], what: str, variables: dict[str, str]) -> str:
    """Run a command with the environment's Python, outside the checkout, and return its output."""
    own = {
        key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "VIRTUAL_"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=python.parents[1],
        env=own | {"PIP_CONFIG_FILE": os.devnull} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise PartsError(f"Cannot {what}: exit code {done.returncode}.\n{said}")
    return done.stdout


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
