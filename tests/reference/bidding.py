"""The auction of `helpers/bidding_game.py` by recursion: exact values of policies, and the best reply. Plain Python."""

from itertools import product

CAP, FEE = 4, 0.125
VALUES = list(product((1, 2, 3), (1, 2, 3)))


def truthful(value, price):
    """Raises as long as that does not cost more than the good is worth."""
    return int(price + 1 <= value)


def result(values, price, me, action):
    """Of one move: (is it over, price, payment of bidder 0, of bidder 1)."""
    paid = [0.0, 0.0]
    if action == 0:
        if price:
            paid[1 - me] = float(values[1 - me] - price)
        return True, price, *paid
    price += 1
    paid[me] -= FEE
    paid[1 - me] += FEE
    if price == CAP:
        paid[me] += values[me] - price
    return price == CAP, price, *paid


def own_value(values, price, who, action, policies, gamma):
    """What bidder `who` gets from its move on; gamma counts its own turns. The values of both are known."""
    over, price, *paid = result(values, price, who, action)
    if over:
        return paid[who]
    other = policies[1 - who](values[1 - who], price)
    over, price, *more = result(values, price, 1 - who, other)
    total = paid[who] + more[who]
    if over:
        return total
    return total + gamma * own_value(values, price, who, policies[who](values[who], price), policies, gamma)


def expected_return(policies):
    """Mean undiscounted return of both over all values, with all that is paid, also before the second one's first turn."""
    totals = [0.0, 0.0]
    for values in VALUES:
        price, me, over = 0, 0, False
        while not over:
            over, price, *paid = result(values, price, me, policies[me](values[me], price))
            totals = [total + own for total, own in zip(totals, paid, strict=True)]
            me = 1 - me
    return [total / len(VALUES) for total in totals]


def best_reply(other):
    """The first bidder's highest mean return against a policy of the second, over all its policies, and such a policy."""
    situations = list(product((1, 2, 3), (0, 2)))
    best = (-1e9, None)
    for choices in product((0, 1), repeat=len(situations)):
        table = dict(zip(situations, choices, strict=True))
        value = expected_return([lambda v, p, table=table: table[v, p], other])[0]
        best = max(best, (value, choices))
    return best[0], dict(zip(situations, best[1], strict=True))
