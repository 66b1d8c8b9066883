"""Check of nodes before ranks start on them: correctness, storage, clocks and network.

driver: NodeChecks ──request──▶ processes on each node: measure ──▶ NodeFigures
        compare ◀── figures of all nodes ──┘
        ──▶ NodeVerdict: nodes that fail, and warnings
"""
