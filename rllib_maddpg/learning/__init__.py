"""The update: equations, groups of networks, the Learner."""
