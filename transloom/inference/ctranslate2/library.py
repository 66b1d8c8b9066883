"""Lazy import of CTranslate2, an optional dependency (the extra `ctranslate2`)."""

from typing import Any

from foundation.optional_packages import install_command
from trainer.errors import EngineError
from transloom.inference.engine_names import ComputeType


def library() -> Any:
    """Return the module `ctranslate2`.

    Raises:
        EngineError: CTranslate2 is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise EngineError(
            f"CTranslate2 cannot be imported ({error}). Install it with "
            f"{install_command('ctranslate2')}, or omit --engine to translate with transloom's own "
            "engine"
        ) from error
    return ctranslate2


def specifications() -> Any:
    """Return the module `ctranslate2.specs`, which describes the structure of models.

    Raises:
        EngineError: CTranslate2 is not installed.
    """
    library()
    import ctranslate2.specs

    return ctranslate2.specs


def require_compute_type(wanted: ComputeType) -> None:
    """Check that this machine's CPU supports a compute type.

    Raises:
        EngineError: the CPU does not support the compute type, or CTranslate2 is not installed.
    """
    possible = sorted(library().get_supported_compute_types("cpu"))
    if wanted not in possible:
        raise EngineError(
            f"--compute-type is {wanted}, but on this CPU CTranslate2 supports only "
            f"{', '.join(possible)}. Name one of these types"
        )
