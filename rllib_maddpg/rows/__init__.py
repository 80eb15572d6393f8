"""Joint rows: which agents and columns they have, how actions and observations look in them, and blocks and batches of them."""
