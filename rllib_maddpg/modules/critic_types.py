"""What kinds of networks critics may be."""

MLP_CRITIC, ATTENTION_CRITIC = "mlp", "attention"
CRITIC_TYPES = (MLP_CRITIC, ATTENTION_CRITIC)
