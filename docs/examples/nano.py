"""The idea on four screens of plain torch: learn from a log what users pick among displayed items,
and let the learned user choose among displays of your own: `python nano.py`.

    min_θ max_α  E_t [ Σ_a φ_α(a|s_t,A_t) r_θ(s_t,a) − Ω(φ_α) − r_θ(s_t,a_t) ]

(Chen et al., "Generative Adversarial User Model for Reinforcement Learning Based Recommendation
System", ICML 2019). s_t is the user's state before event t, A_t the display, a_t the choice; φ_α is
the generator, r_θ the reward, and −Ω the entropy. The library trains the same game without padding,
by kernels; it reads more of a log, and chooses its own settings."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import fastgaum as fg

# ---- the log: display sets and choices, padded to rectangles -----------------------------------


class Batch(NamedTuple):
    """E events in B sessions of at most T events, with at most K candidates; id 0 is no click."""

    ids: Tensor
    """id of each candidate, int64, (E, K); 0 in empty slots"""
    real: Tensor
    """slots that hold a candidate, bool, (E, K)"""
    choice: Tensor
    """slot of the choice, 0 for none, int64, (E,)"""
    clicked: Tensor
    """events with a choice, bool, (E,)"""
    tokens: Tensor
    """id chosen at each step, 0 for no click and for padding, int64, (B, T)"""
    row: Tensor
    """session of each event, int64, (E,)"""
    step: Tensor
    """position of each event in its session, int64, (E,)"""


def pad(
    session_offsets: np.ndarray, display_offsets: np.ndarray, ids: np.ndarray, choices: np.ndarray
) -> Batch:
    """Pad packed sessions: their events from `session_offsets` (B + 1,), the events' candidates
    from `display_offsets` (E + 1,), the candidates' ids, and the slot of each choice, -1 for
    none."""
    lengths, sizes = np.diff(session_offsets), np.diff(display_offsets)
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(len(sizes)) - np.repeat(session_offsets[:-1], lengths)
    real = np.arange(int(sizes.max())) < sizes[:, None]
    padded = np.zeros(real.shape, np.int64)
    padded[real] = ids
    clicked, choice = choices >= 0, np.maximum(choices, 0).astype(np.int64)
    tokens = np.zeros((len(lengths), int(lengths.max())), np.int64)
    tokens[row, step] = np.where(clicked, padded[np.arange(len(padded)), choice], 0)
    return Batch(*map(torch.from_numpy, (padded, real, choice, clicked, tokens, row, step)))


def batch_of(log: fg.SessionLog, sessions: np.ndarray) -> Batch:
    """Some sessions of a log; item i has the id i + 1."""
    events = np.concatenate([np.arange(*log.session_offsets[s : s + 2]) for s in sessions])
    sizes = np.diff(log.display_offsets)[events]
    ids = np.concatenate([log.items[slice(*log.display_offsets[e : e + 2])] + 1 for e in events])
    ends = [np.append(0, np.cumsum(x)) for x in (np.diff(log.session_offsets)[sessions], sizes)]
    return pad(ends[0], ends[1], ids, log.choices[events])


# ---- the networks: history encoder, reward, generator ------------------------------------------


class OneHot(nn.Module):
    """A linear layer on one-hots: a row of a table for each id, and a bias."""

    def __init__(self, n_ids: int, out: int, std: float) -> None:
        super().__init__()
        self.table = nn.Parameter(std * torch.randn(n_ids, out))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, ids: Tensor) -> Tensor:
        """(…,) → (…, out)."""
        rows = functional.embedding_bag(ids.reshape(-1, 1), self.table, mode="sum")
        return (rows + self.bias).view(*ids.shape, -1)


class History(nn.Module):
    """An LSTM over the choices of a session; the state of an event has read those before it."""

    def __init__(self, n_ids: int, dim: int) -> None:
        super().__init__()
        bound = dim**-0.5
        # of one-hots, W_ih x is a row of 4 dim gates: nn.LSTM is given it through the identity
        self.input = OneHot(n_ids, 4 * dim, bound / 2)
        self.lstm = nn.LSTM(4 * dim, dim, batch_first=True)
        nn.init.uniform_(self.lstm.weight_hh_l0, -bound, bound)
        for name, value in (
            ("weight_ih_l0", torch.eye(4 * dim)),
            ("bias_ih_l0", torch.zeros(4 * dim)),
            ("bias_hh_l0", torch.zeros(4 * dim)),
        ):
            fixed = getattr(self.lstm, name).requires_grad_(False)
            fixed.copy_(value)

    def forward(self, batch: Batch) -> Tensor:
        """States before the events, (E, dim); zero before the first of a session."""
        ids = batch.tokens[:, :-1]
        if ids.shape[1] == 0:
            return torch.zeros(len(batch.row), self.lstm.hidden_size)
        after: Tensor = self.lstm(self.input(ids))[0]
        return functional.pad(after, (0, 0, 1, 0))[batch.row, batch.step]


class Scorer(nn.Module):
    """(state, candidate) → one number; no click is pinned at 0. Reward and generator are one each.
    The first layer on [state; one-hot] is a matrix times the state plus a row of a table."""

    def __init__(self, n_ids: int, dim: int, hidden: tuple[int, ...], act: nn.Module) -> None:
        super().__init__()
        widths = [*hidden, 1]
        self.first = OneHot(n_ids, widths[0], 0.1)
        self.from_state = nn.Linear(dim, widths[0], bias=False)
        self.rest = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = act

    def forward(self, ids: Tensor, states: Tensor) -> Tensor:
        """ids (E, K), states (E, dim) → (E, K)."""
        x = self.first(ids) + self.from_state(states)[:, None]
        for layer in self.rest:
            x = layer(self.act(x))
        return x[..., 0]


# ---- the game ----------------------------------------------------------------------------------


class Nano(nn.Module):
    """The three networks, and a round of their game."""

    def __init__(
        self,
        n_ids: int,
        no_click: bool,
        dim: int = 20,
        hidden: tuple[int, ...] = (64, 64),
        act: type[nn.Module] = nn.ELU,
        lr: float = 3e-3,
        weight_decay: float = 0.0,
        generator_steps: int = 1,
        clip: float = 1.0,
        eta: float = 1.0,
    ) -> None:
        """no_click: whether nothing is a choice too; dim: of the LSTM; eta: scale of utilities."""
        super().__init__()
        self.no_click, self.eta, self.clip = no_click, eta, clip
        self.generator_steps = generator_steps
        self.player = nn.ModuleDict(
            {"history": History(n_ids, dim), "reward": Scorer(n_ids, dim, hidden, act())}
        )
        self.generator = Scorer(n_ids, dim, hidden, act())
        self.optimisers = [
            torch.optim.AdamW(
                [one for one in module.parameters() if one.requires_grad],
                lr=lr,
                weight_decay=decay,
                fused=True,
            )
            for module, decay in ((self.player, weight_decay), (self.generator, 0.0))
        ]

    def utility(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """r of all slots, (E, K), and the states, (E, dim)."""
        states: Tensor = self.player["history"](batch)
        return self.player["reward"](batch.ids, states), states

    def masked(self, scores: Tensor, batch: Batch) -> Tensor:
        """Scores of the candidates, and 0 for no click in a last column where it is offered."""
        masked = scores.masked_fill(~batch.real, -torch.inf)
        return functional.pad(masked, (0, 1)) if self.no_click else masked

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """∇Ω*, the softmax over what was displayed, (E, K)."""
        return self.masked(scores, batch).softmax(-1)[..., : scores.shape[-1]]

    def round(self, batch: Batch) -> float:
        """Steps of the generator towards the best response to the reward, then one step of the
        reward: up where users chose, down where the generator would. Return the mean of
        ⟨φ, r⟩ − r(a_t)."""
        with torch.no_grad():
            utility, states = self.utility(batch)
            best = self.probabilities(self.eta * utility, batch)
        for _ in range(self.generator_steps):
            logits = self.generator(batch.ids, states)
            value = self.masked(logits, batch).logsumexp(-1) - (best * logits).sum(-1)
            self.update(value.mean(), 1)
        with torch.no_grad():
            probs = self.probabilities(self.generator(batch.ids, states), batch)
        utility = self.utility(batch)[0]
        chosen = utility.gather(-1, batch.choice[:, None])[:, 0] * batch.clicked
        return self.update(((probs * utility).sum(-1) - chosen).mean(), 0)

    def update(self, loss: Tensor, player: int) -> float:
        """One step of a player, clipped by its own gradient."""
        optimiser = self.optimisers[player]
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], self.clip)
        optimiser.step()
        return float(loss.detach())


def precision_at_1(nano: Nano, batch: Batch) -> float:
    """The share of choices whose item has the highest utility of its display, in percent."""
    with torch.no_grad():
        utility = nano.utility(batch)[0].masked_fill(~batch.real, -torch.inf)
    right = utility.argmax(-1) == batch.choice
    return 100 * float(right[batch.clicked].float().mean())


# ---- the world: users who choose among what a policy displays ----------------------------------


class Users:
    """n learned users without a history."""

    def __init__(self, nano: Nano, n: int, seed: int = 0) -> None:
        self.nano, self.memory = nano, None
        self.states = torch.zeros(n, nano.player["history"].lstm.hidden_size)
        self.random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def step(self, slates: Tensor) -> Tensor:
        """Display a slate of ids to each user, (n, K); return the id that each chose, 0 for none,
        (n,). Their states move on."""
        scores = self.nano.generator(slates, self.states)
        if self.nano.no_click:
            scores, slates = functional.pad(scores, (0, 1)), functional.pad(slates, (0, 1))
        places = torch.multinomial(scores.softmax(-1), 1, generator=self.random)
        chosen = slates.gather(1, places)
        history = self.nano.player["history"]
        after, self.memory = history.lstm(history.input(chosen), self.memory)
        self.states = after[:, 0]
        return chosen[:, 0]


def main(epochs: int = 12, batch_sessions: int = 64, seed: int = 0) -> float:
    """Train on the bundled sample; return prec@1 on its test split, in percent."""
    torch.manual_seed(seed)
    log, draws = fg.load("sample"), np.random.default_rng(seed)
    nano = Nano(log.n_items + 1, no_click=log.has_no_click)
    best, weights = 0.0, nano.state_dict()
    for epoch in range(epochs):
        sessions = draws.permutation(log.sessions_in("train"))
        parts = np.array_split(sessions, max(len(sessions) // batch_sessions, 1))
        loss = np.mean([nano.round(batch_of(log, part)) for part in parts])
        found = precision_at_1(nano, batch_of(log, log.sessions_in("validation")))
        print(f"epoch {epoch + 1}: ⟨φ, r⟩ − r(a) {loss:+.4f}, validation prec@1 {found:.1f}")
        if found > best:
            best, weights = found, copy.deepcopy(nano.state_dict())
    nano.load_state_dict(weights)
    test = precision_at_1(nano, batch_of(log, log.sessions_in("test")))
    print(f"test prec@1 {test:.1f}")

    users = Users(nano, 1000)
    for step in range(3):
        slates = torch.randint(1, log.n_items + 1, (1000, 5), generator=users.random)
        with torch.no_grad():
            favourites = nano.player["reward"](slates, users.states).argmax(-1)
        took = users.step(slates) == slates.gather(1, favourites[:, None])[:, 0]
        print(
            f"step {step + 1}: {100 * float(took.float().mean()):.0f} % took their favourite of 5"
        )
    return test


if __name__ == "__main__":
    main()
