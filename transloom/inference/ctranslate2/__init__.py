"""CTranslate2, which translates faster on CPUs and in other programs.

network, tokenizers ─conversion─▶ a folder of CTranslate2's ─kept_export─▶ kept in the run
                                                            ─searcher────▶ hypotheses
"""
