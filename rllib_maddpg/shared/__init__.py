"""One actor that learns for many trials: each trial's Learner and replay buffer, and what the trials have instead of them."""
