"""Probe sentences while the model was trained: a slider from its first step to the page's weights.

time-lapse/ of the run ─▶ section.py ─▶ markup.py, lapse.js: one moment at a time
"""
