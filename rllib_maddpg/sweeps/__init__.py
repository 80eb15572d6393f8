"""Sweeps: many training runs from one YAML file, with Ray Tune; ranked, drawn, resumed."""
