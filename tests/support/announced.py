"""Make installed packages that announce extensions, for a test."""

from pathlib import Path


def install(site: Path, module: str, code: str, *components: str) -> None:
    """Install a package with one module into a directory of `sys.path`.

    Args:
        components: components that the package announces for its module, each as KIND.NAME.
    """
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code)
    about = site / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = "".join(f"{component} = {module}\n" for component in components)
    (about / "entry_points.txt").write_text(f"[transloom.extensions]\n{lines}")
