"""Show translations of probe sentences during training, with a slider for the step.

time-lapse/ of the run ─▶ section.py ─▶ markup.py, lapse.js: one step at a time
"""
