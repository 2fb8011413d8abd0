"""DQN in one file of plain PyTorch, importing nothing from dqn: what the package must equal, to the last bit."""

import time
from dataclasses import dataclass

import gymnasium
import torch
from torch import nn


@dataclass
class Settings:
    """CleanRL's dqn.py for CartPole-v1, but for the counts the caller gives."""

    env_id: str = "CartPole-v1"
    steps: int = 2000
    hidden: tuple = (120, 84)
    lr: float = 2.5e-4
    gamma: float = 0.99
    capacity: int = 10_000
    batch_size: int = 128
    learning_starts: int = 1000
    train_every: int = 10
    updates: int = 1
    target_period: int = 500
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_steps: int = 10_000
    max_grad_norm: float = 10.0
    # the seeds of the four random streams
    seed_parameters: int = 0
    seed_env: int = 0
    seed_exploration: int = 0
    seed_replay: int = 0


def network(inputs, hidden, actions):
    layers = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, actions))


class Replay:
    """A list used as a ring of (s, a, r, terminated, s′)."""

    def __init__(self, capacity):
        self.capacity, self.items = capacity, []

    def add(self, item):
        self.items.append(item)
        if len(self.items) > self.capacity:
            self.items.pop(0)

    def sample(self, count, generator):
        draw = torch.rand(count, dtype=torch.float64, generator=generator)
        chosen = [self.items[int(u * len(self.items))] for u in draw.tolist()]
        s, a, r, over, s_next = zip(*chosen, strict=True)
        return (
            torch.tensor(s), torch.tensor(a), torch.tensor(r), torch.tensor(over, dtype=torch.float32),
            torch.tensor(s_next),
        )  # fmt: skip


def epsilon(step, settings):
    progress = min(step / settings.epsilon_steps, 1.0)
    return settings.epsilon_start + (settings.epsilon_end - settings.epsilon_start) * progress


def act(online, obs, rate, generator):
    with torch.no_grad():
        q = online(torch.tensor(obs)[None])
    coin = torch.rand(1, generator=generator)
    other = torch.randint(q.shape[1], (1,), generator=generator)
    return int(other if coin < torch.tensor(rate) else q.argmax(1))


def learn(online, target, optimizer, batch, settings):
    s, a, r, over, s_next = batch
    with torch.no_grad():
        y = r + settings.gamma * (1 - over) * target(s_next).max(1).values
    q = online(s).gather(1, a[:, None]).squeeze(1)
    loss = nn.functional.huber_loss(q, y)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(online.parameters(), settings.max_grad_norm)
    optimizer.step()


def train(settings):
    """Returns (parameters by name order, updates, env steps per second)."""
    torch.manual_seed(settings.seed_parameters)
    env = gymnasium.make(settings.env_id)
    inputs, actions = env.observation_space.shape[0], int(env.action_space.n)
    online = network(inputs, settings.hidden, actions)
    target = network(inputs, settings.hidden, actions)
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=settings.lr, fused=True)
    replay = Replay(settings.capacity)
    exploring = torch.Generator().manual_seed(settings.seed_exploration)
    sampling = torch.Generator().manual_seed(settings.seed_replay)
    updates, started = 0, time.perf_counter()
    obs, _ = env.reset(seed=settings.seed_env)
    for step in range(settings.steps):
        action = act(online, obs, epsilon(step, settings), exploring)
        obs_next, reward, terminated, truncated, _ = env.step(action)
        replay.add((obs.tolist(), action, float(reward), terminated, obs_next.tolist()))
        obs = obs_next
        if terminated or truncated:
            obs, _ = env.reset()
        done = step + 1
        if done > settings.learning_starts and (done - settings.learning_starts) % settings.train_every == 0:
            for _ in range(settings.updates):
                learn(online, target, optimizer, replay.sample(settings.batch_size, sampling), settings)
                updates += 1
        if done % settings.target_period == 0:
            target.load_state_dict(online.state_dict())
    return (
        [p.detach() for p in online.parameters()],
        updates,
        settings.steps / (time.perf_counter() - started),
    )
