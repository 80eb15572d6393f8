"""What speed and memory the package has: each part measured against a stated baseline, in one and the same run.

`python -m benchmarks` is the way in (`command`); in a checkout, `rllib-maddpg bench` is the same. `sampling`, `replay`,
`update`, `gradients`, `family`, `critics`, `ensembles`, `draws`, `train`, `growth` and `soak` measure; `compare` says how
measurements become medians and ratios; `text`, `markdown` and `pictures` show them.
"""
