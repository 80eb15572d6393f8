"""What speed and memory the package has: each part measured against a stated baseline, in one and the same run.

`rllib-maddpg bench` is the way in (`command`). `sampling`, `replay`, `update`, `train`, `growth` and `soak` measure; `compare`
says how measurements become medians and ratios; `text`, `markdown` and `pictures` show them.
"""
