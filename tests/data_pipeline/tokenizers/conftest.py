"""The compiled code that draws random segmentations."""

import pytest
from support.machine_parts import lacks, missing

from data_pipeline.tokenizers.compiled_segmentation import SOURCE, Library
from hatch_build import compile_segmenter


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Compiled of the source as it is now, whatever the installation has."""
    if reason := lacks("compiler"):
        missing(reason)
    path = tmp_path_factory.mktemp("compiled") / "libsegmenter.so"
    compile_segmenter(SOURCE, path)
    return Library(path)
