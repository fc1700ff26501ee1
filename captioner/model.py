"""The network: a grid of image features, read by an attending LSTM that emits one token a step.

Show, Attend and Tell (Xu et al. 2015) with its soft attention and gated context, the additive scores of
Bahdanau et al. (2015), and optionally a tied output layer (Press and Wolf 2017), a pyramid of bidirectional LSTMs over
the grid (Chan et al. 2016) and input feeding (Luong et al. 2015).

Legend: B images, K sequences an image, N = B·K rows (image-major), P grid positions, Q of them as the decoder reads
them, D encoder features, F features as the decoder reads them, A attention width, E embedding width, H state width,
S width of what the output layer reads, T steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captioner.config import READERS, ModelConfig
from captioner.encoder import GridEncoder


class Grid(NamedTuple):
    """What the decoder sees of B images; computed once, read at every step."""

    values: Tensor  # (B, Q, F)
    keys: Tensor  # (B, Q, A): the values' part of the attention scores


class State(NamedTuple):
    """What the decoder remembers of N partial sequences."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)
    said: Tensor  # (N, S): what the output layer read last; of width 0 where it is not fed back


class GridReader(nn.Module):
    """Standardises the encoder's features and projects them to the decoder's width.

    A backbone's last features are positive, large and share a strong common direction. Read as they are, every step
    of an adaptive optimiser moves all attention scores together, and their tanh saturates within an epoch.
    """

    def __init__(self, features: int, values: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.project = nn.Linear(features, values)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(B, P, D) → (B, P, F): Q = P."""
        standard = self.norm(features.flatten(0, 1)).view_as(features)
        values: Tensor = self.dropout(torch.relu(self.project(standard)))
        return values


class PyramidReader(nn.Module):
    """Bidirectional LSTMs over the positions, row by row; each layer after the first reads two neighbours as one.

    The pyramid of Listen, Attend and Spell (Chan et al. 2016, section 3.1), over features that are standardised first
    as a :class:`GridReader`'s are.
    """

    LAYERS = 3

    def __init__(self, features: int, values: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        widths = [features] + [2 * values] * (self.LAYERS - 1)
        self.layers = nn.ModuleList(
            nn.LSTM(width, values // 2, batch_first=True, bidirectional=True) for width in widths
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(B, P, D) → (B, P / 4, F): Q = P / 4."""
        standard = self.norm(features.flatten(0, 1)).view_as(features)
        first, *others = self.layers
        values: Tensor = self.dropout(first(standard)[0])  # (B, P, F)
        for layer in others:
            pairs = values.reshape(len(values), values.shape[1] // 2, -1)  # (B, P / 2, 2 F), then (B, P / 4, 2 F)
            values = self.dropout(layer(pairs)[0])
        return values


class AdditiveAttention(nn.Module):
    """score(h, f) = v · tanh(W f + U h): Bahdanau et al. (2015), appendix A.1.2."""

    def __init__(self, values: int, hidden: int, attention: int) -> None:
        super().__init__()
        self.key = nn.Linear(values, attention)
        self.query = nn.Linear(hidden, attention, bias=False)
        self.score = nn.Linear(attention, 1, bias=False)  # a bias would cancel in the softmax

    def forward(self, hidden: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """(N, H) hidden → (N, F) context, (N, Q) weights that sum to one.

        The K rows of one image share its grid by broadcasting, so that beams cost no copies of it.
        """
        images, positions, _ = grid.keys.shape
        query = self.query(hidden).view(images, -1, 1, grid.keys.shape[-1])  # (B, K, 1, A)
        scores = self.score(torch.tanh(grid.keys.unsqueeze(1) + query)).squeeze(-1)  # (B, K, Q)
        weights = scores.float().softmax(dim=-1)
        context = weights.to(grid.values.dtype) @ grid.values  # (B, K, F)
        return context.flatten(0, 1), weights.view(-1, positions)


class CaptionModel(nn.Module):
    """Encoder, attention and decoder. Everything recurrent happens in :meth:`step`.

    Args:
        config: the architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = GridEncoder(config.encoder, config.grid_node)
        values, embedding, hidden = config.value_size, config.embedding_size, config.hidden_size
        said = config.output_size or embedding
        self.fed = said if config.input_feeding else 0
        reader = {"projection": GridReader, "pyramid": PyramidReader}[config.reader]
        self.reader = reader(config.grid_features, values, config.dropout)
        self.embedding = nn.Embedding(config.vocabulary_size, embedding)
        self.initial = nn.Linear(values, 2 * hidden)
        self.attention = AdditiveAttention(values, hidden, config.attention_size)
        self.gate = nn.Linear(hidden, values) if config.gated_context else None
        self.cell = nn.LSTMCell(embedding + (self.fed or values), hidden)
        self.output_hidden = nn.Linear(hidden, said)
        self.output_context = nn.Linear(values, said, bias=False)
        self.output = nn.Linear(said, config.vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=0.1)  # torch's default of 1 gives a tied layer huge first logits
        nn.init.zeros_(self.output.bias)
        self.tie()

    def tie(self) -> None:
        """Share the embedding's matrix with the output layer, where the architecture says so."""
        if self.config.tied_output:
            self.output.weight = self.embedding.weight

    def encode(self, pixels: Tensor) -> Grid:
        """(B, 3, H, W) normalised pixels → the grid of B images."""
        return self.read(self.encoder(pixels))

    def read(self, features: Tensor) -> Grid:
        """(B, P, D) encoder features → the grid that :meth:`step` attends to."""
        values = self.reader(features)
        return Grid(values, self.attention.key(values))

    def start(self, grid: Grid) -> State:
        """The state before the first token, from the grid's mean (Xu et al. 2015, section 3.1.2): B rows."""
        hidden, cell = torch.tanh(self.initial(grid.values.mean(dim=1))).float().chunk(2, dim=-1)
        return State(hidden, cell, hidden.new_zeros(len(hidden), self.fed))

    def look(self, hidden: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """(N, H) hidden → (N, F) context, (N, P) attention weights.

        The weight of positions that the reader made one is shared out evenly among them: how much each of them gave,
        a pyramid does not tell.
        """
        context, weights = self.attention(hidden, grid)
        if self.gate is not None:
            context = context * torch.sigmoid(self.gate(hidden))
        if (pooled := READERS[self.config.reader]) > 1:
            weights = weights.repeat_interleave(pooled, dim=-1) / pooled
        return context, weights

    def step(self, tokens: Tensor, state: State, grid: Grid) -> tuple[Tensor, State, Tensor]:
        """Read one token, predict the next.

        Args:
            tokens: (N,) the previous token of each row.
            state: the rows' state.
            grid: the grid of B images, N a multiple of B; rows of one image stand together.

        Returns:
            (N, V) logits of the next token, the next state, (N, P) attention weights.
        """
        embedded = self.dropout(self.embedding(tokens))  # (N, E)
        if self.config.input_feeding:
            hidden, cell = self.cell(torch.cat((embedded, state.said), dim=-1), (state.hidden, state.cell))
            context, weights = self.look(hidden, grid)  # (N, F), (N, P)
            said = torch.tanh(self.output_hidden(hidden) + self.output_context(context))  # (N, S)
        else:
            context, weights = self.look(state.hidden, grid)
            hidden, cell = self.cell(torch.cat((embedded, context), dim=-1), (state.hidden, state.cell))
            said = self.output_hidden(hidden) + self.output_context(context)
        return self.output(self.dropout(said)), State(hidden, cell, said[:, : self.fed]), weights

    def forward(self, grid: Grid, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: (N, T) tokens, from bos on → (N, T, V) logits, (N, T, P) attention weights."""
        state = expand(self.start(grid), tokens.shape[0] // grid.values.shape[0])
        logits, weights = [], []
        for previous in tokens.unbind(dim=1):
            step_logits, state, step_weights = self.step(previous, state, grid)
            logits.append(step_logits)
            weights.append(step_weights)
        return torch.stack(logits, dim=1), torch.stack(weights, dim=1)


class _WithoutValues(TorchFunctionMode):
    """Leaves out what fills fresh parameters: on the meta device that does nothing, but imports torch's compiler."""

    FILLING = frozenset({Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_})

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in self.FILLING or getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def skeleton(config: ModelConfig) -> CaptionModel:
    """The architecture alone, on the meta device, for weights to be assigned.

    Raises:
        OptionError: there is no such encoder or node.
    """
    with torch.device("meta"), _WithoutValues():
        return CaptionModel(config)


def expand(state: State, copies: int) -> State:
    """Each row ``copies`` times, copies side by side: from B rows to N = B·copies."""
    return State(*(part.repeat_interleave(copies, dim=0) for part in state))
