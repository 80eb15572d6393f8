"""Step 9: MADDPG with inferred policies. In step 8 a critic's target needs the actors of all others; here nobody shows theirs.

Each agent learns approximations of the others' policies from what they were seen to do (Lowe et al. 2017, section 4.2), and its
critic's target takes these. All else is as in step 8.
"""

from __future__ import annotations

from adversary import learn
from pictures import parse


def main(args: list[str] | None = None) -> None:
    learn("step_9_inferred_policies", parse(__doc__, args), infer_other_policies=True)


if __name__ == "__main__":
    main()
