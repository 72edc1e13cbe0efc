"""Loss functions: tensors in, tensors out; no task, no communication between processes, no reduction over layers.

Every function computes in float32 at least: half-precision arguments are raised, float64 is kept.
"""
