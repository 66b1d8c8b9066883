"""Check of nodes before ranks start on them: correctness, speed, storage, clocks and network.

driver: NodeChecks ──request──▶ a process on each node: measure_node ──▶ NodeFigures
        compare ◀── figures of all nodes ──┘
        ──▶ NodeVerdict: nodes that fail, and warnings
"""
