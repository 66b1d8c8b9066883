"""CTranslate2, which translates faster on CPUs and in other programs.

The pipeline:

    network, tokenizers ─conversion─▶ a folder of CTranslate2's ─export_cache─▶ cached in the run
                                                                ─searcher─────▶ hypotheses
"""
