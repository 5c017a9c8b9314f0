"""Measured comparisons, run by hand and in CI in a short form. Never a timed assertion in a test.

python -m benchmarks encode recipes/efficientsam3_m0_9.yaml
python -m benchmarks track recipes/efficientsam3_m0_9.yaml --artifact dist/efficientsam3_m0_9
python -m benchmarks segment recipes/efficientsam3_m0_9.yaml --artifact dist/efficientsam3_m0_9
python -m benchmarks curves recipes/efficientsam3_m0_9.yaml --cache dist/curves
"""
