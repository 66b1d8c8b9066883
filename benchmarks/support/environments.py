"""Environments of their own for the programs that transloom is measured against."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".bench-peers"  # git ignores it
MATPLOTLIB = ["matplotlib==3.11.2"]


def draw(script: Path, curves: str, picture: Path) -> None:
    """Have a script draw curves, which are JSON, with matplotlib."""
    python = environment_with(MATPLOTLIB, PEERS / "plots")
    drawing = [str(python), str(script), str(picture)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(drawing, input=curves, text=True, check=True, env=environment)
    print(f"drawn: {picture}", file=sys.stderr)


def environment_with(
    packages: list[str],
    environment: Path,
    torch_index: str | None = None,
    constraints: Path | None = ROOT / "locks" / "cuda.txt",
) -> Path:
    """The Python of an environment with these packages, which is made when it is missing.

    Args:
        torch_index: package index with torch for this machine's CPU or CUDA version.
        constraints: transloom's own lock, whose versions packages share unless they cannot live
            with them.
    """
    python = environment / "bin" / "python"
    made, wanted = environment / "packages.txt", "\n".join(packages)
    if made.exists() and made.read_text() == wanted:
        return python
    print(
        f"setting up {environment} (once; with torch about 1.5 GB, with CUDA more)", file=sys.stderr
    )
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    (environment / ".gitignore").write_text("*\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--no-input"]
    if constraints is not None:
        # Without hashes: those of packages that are not in the lock are unknown.
        pins = re.findall(r"^[a-z][^ ]*==[^ ]+", constraints.read_text(), re.MULTILINE)
        (environment / "pins.txt").write_text("\n".join(pins))
        install += ["--constraint", str(environment / "pins.txt")]
    if torch_index:
        torch = [one for one in packages if one.partition("==")[0] in ("torch", "torchvision")]
        subprocess.run([*install, "--index-url", torch_index, *torch], check=True)
    subprocess.run([*install, *packages], check=True)
    made.write_text(wanted)
    return python
