"""From environments to joint rows: env runner, exploration, the columnar loop, and collecting what runners return."""
