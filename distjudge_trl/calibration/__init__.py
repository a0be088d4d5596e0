"""Calibration that travels with a judge: scaling, and label sets with a promised coverage."""
