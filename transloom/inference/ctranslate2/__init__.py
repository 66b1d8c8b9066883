"""Translation with CTranslate2, which is faster on CPUs and can be used by other programs.

The pipeline:

    network, tokenizers ─conversion─▶ CTranslate2 model ─export_cache─▶ cached in the run folder
                                                        ─searcher─────▶ hypotheses
"""
