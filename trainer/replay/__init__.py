"""A step under the microscope: trained once more, compared with the record, looked into.

    checkpoint before ──build──▶ the loop of every run ──recorder──▶ lines ──┐
                                        │                                    ├──judgement──▶ Look
                                   microscope ──▶ reports of the ranks ──────┘

Nothing is written into the run: the ranks get a scratch folder.
"""
