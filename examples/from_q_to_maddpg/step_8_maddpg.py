"""Step 8: MADDPG. Each actor decides by what it observes itself; each critic sees what all observe and do, in training only.

So the game that a critic learns about is the same one whatever the others learn (step 6). This is `simple_adversary` with the
settings of the lecture's program: two good agents cover a target that their adversary is to find, and must not give it away.
The score of each 100 games is drawn; the best checkpoint is kept, and played without noise.
"""

from __future__ import annotations

from adversary import learn
from pictures import parse


def main(args: list[str] | None = None) -> None:
    learn("step_8_maddpg", parse(__doc__, args))


if __name__ == "__main__":
    main()
