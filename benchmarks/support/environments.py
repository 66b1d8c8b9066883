"""Create separate environments for the programs that transloom is compared with (peers)."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".bench-peers"  # git ignores it
# Packages that the scripts for peers import.
SHARED_PACKAGES = ("benchmarks", "data_pipeline", "foundation", "model")
MATPLOTLIB = ["matplotlib==3.11.2"]
HUGGING_FACE = [
    "torch==2.13.0",
    "numpy",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "safetensors",
]


def peer_variables() -> dict[str, str]:
    """Return the environment variables for a script that runs in a peer's environment.

    The script imports our packages through links in a folder that contains nothing else. With the
    repository's root on the path, a peer would import `datasets/` and `wandb/` instead of the
    packages with these names. The script's own folder, Python's default, could hide other packages.
    """
    links = PEERS / "imports"
    links.mkdir(parents=True, exist_ok=True)
    for package in SHARED_PACKAGES:
        with suppress(FileExistsError):
            (links / package).symlink_to(Path("..", "..", package), target_is_directory=True)
    return {"PYTHONPATH": str(links), "PYTHONSAFEPATH": "1"}


def draw(script: Path, curves: str, picture: Path) -> None:
    """Run a script that draws curves with matplotlib.

    Args:
        curves: the curves as JSON, which the script reads from standard input.
        picture: the file to write.
    """
    python = environment_with(MATPLOTLIB, PEERS / "plots")
    drawing = [str(python), str(script), str(picture)]
    environment = os.environ | peer_variables()
    subprocess.run(drawing, input=curves, text=True, check=True, env=environment)
    print(f"Wrote {picture}", file=sys.stderr)


def hugging_face_python(torch_index: str | None) -> Path:
    """Return the Python of the environment with transformers; see `environment_with`."""
    return environment_with(HUGGING_FACE, PEERS / "hugging-face", torch_index)


def environment_with(
    packages: list[str],
    environment: Path,
    torch_index: str | None = None,
    constraints: Path | None = ROOT / "locks" / "cuda.txt",
) -> Path:
    """Return the Python of an environment with these packages; create the environment if needed.

    Args:
        torch_index: package index with torch for this machine's CPU or CUDA version.
        constraints: transloom's lock, whose versions the packages share; None if the packages are
            incompatible with these versions.
    """
    python = environment / "bin" / "python"
    made, wanted = environment / "packages.txt", "\n".join(packages)
    if made.exists() and made.read_text() == wanted:
        return python
    print(
        f"Creating {environment}. With torch, it takes about 1.5 GB, and with CUDA more.",
        file=sys.stderr,
    )
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    (environment / ".gitignore").write_text("*\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--no-input"]
    if constraints is not None:
        # The hashes are omitted, because those of packages outside the lock are unknown.
        pins = re.findall(r"^[a-z][^ ]*==[^ ]+", constraints.read_text(), re.MULTILINE)
        (environment / "pins.txt").write_text("\n".join(pins))
        install += ["--constraint", str(environment / "pins.txt")]
    if torch_index:
        torch = [one for one in packages if one.partition("==")[0] in ("torch", "torchvision")]
        subprocess.run([*install, "--index-url", torch_index, *torch], check=True)
    subprocess.run([*install, *packages], check=True)
    made.write_text(wanted)
    return python
