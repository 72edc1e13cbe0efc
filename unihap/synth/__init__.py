"""Rendered people with exact labels of every task, written in the layouts of the real datasets (extra ``synth``)."""
