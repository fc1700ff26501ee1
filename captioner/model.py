"""The network: a grid of image features, read by a recurrent decoder that emits one token a step.

One family of textbook decoders, chosen by :class:`~captioner.config.ModelConfig`: Show and Tell (Vinyals et al. 2015),
Show, Attend and Tell (Xu et al. 2015) with the additive scores of Bahdanau et al. (2015), the attention of Luong et al.
(2015) with or without input feeding, and adaptive attention with a visual sentinel (Lu et al. 2017), over Elman, GRU or
LSTM cells. What differs is which parts a model has and when it looks; :meth:`CaptionModel.step` is one for all.

Lengths are asked for by ``shape``: where the network is traced for export (:mod:`captioner.export`), ``len`` would make
them constants.

Legend: B images, K sequences an image, N = B·K rows (image-major), P grid positions, Q of them as the decoder reads
them, D encoder features, F features as the decoder reads them, A width of the attention's keys, E embedding width,
L layers, H state width, S width of what the output layer reads, T steps, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captioner.config import READERS, ModelConfig
from captioner.encoder import GridEncoder

CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


class Grid(NamedTuple):
    """What the decoder sees of B images; computed once, read at every step."""

    values: Tensor  # (B, Q, F)
    keys: Tensor  # (B, Q, A): the values' part of the attention scores; of width 0 without attention


class State(NamedTuple):
    """What the decoder remembers of N partial sequences."""

    hidden: Tensor  # (N, L, H)
    cell: Tensor  # (N, L, H); of no layers where the cells are no LSTM
    said: Tensor  # (N, S): what the output layer read last; of width 0 where it is not fed back


class PointReader(nn.Module):
    """Reads each position by itself: standardises the encoder's features, projects them to the decoder's width.

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


class RecurrentReader(nn.Module):
    """Bidirectional LSTMs over the positions, row by row, over features standardised as a :class:`PointReader`'s are.

    One layer is the encoder of Bahdanau et al. (2015); with more, each after the first reads two neighbours as one: the
    pyramid of Listen, Attend and Spell (Chan et al. 2016, section 3.1), as image2speech has it (Hasegawa-Johnson et al.
    2018).
    """

    def __init__(self, features: int, values: int, dropout: float, *, layers: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        widths = [features] + [2 * values] * (layers - 1)
        self.width = values // 2  # of each direction
        self.layers = nn.ModuleList(
            nn.LSTM(width, self.width, batch_first=True, bidirectional=True) for width in widths
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(B, P, D) → (B, Q, F), Q = P / 2^(layers - 1)."""
        images, positions, _ = features.shape
        standard = self.norm(features.flatten(0, 1)).view_as(features)
        zeros = standard.new_zeros(2, images, self.width)  # to begin with; torch's own would be traced as of one batch
        first, *others = self.layers
        values: Tensor = self.dropout(first(standard, (zeros, zeros))[0])  # (B, P, F)
        for layer in others:
            positions = positions // 2
            pairs = values.reshape(images, positions, -1)  # (B, P / 2, 2 F), then (B, P / 4, 2 F)
            values = self.dropout(layer(pairs, (zeros, zeros))[0])
        return values


class Attention(nn.Module):
    """Scores each position of a grid by a state, and reads the grid with the softmax of the scores.

    ``additive``: v · tanh(W f + U h), Bahdanau et al. (2015), appendix A.1.2; ``general``: h · W f and ``dot``: h · f,
    Luong et al. (2015), section 3.1. The part of the values alone, the keys, is computed once an image.

    A visual sentinel is one more place to look at, each row's own: what the decoder knows without the image (Lu et al.
    2017, section 3.2). Its key has weights of its own where the keys have any.
    """

    def __init__(self, score: str, values: int, hidden: int, width: int, *, sentinel: bool) -> None:
        super().__init__()
        self.additive = score == "additive"
        self.width = {"additive": width, "general": hidden, "dot": values}[score]  # of a key
        keys: dict[str, Callable[[], nn.Module]] = {
            "additive": lambda: nn.Linear(values, width),
            "general": lambda: nn.Linear(values, hidden, bias=False),
            "dot": nn.Identity,
        }
        self.key = keys[score]()
        if sentinel:
            self.sentinel_key = keys[score]()
        if self.additive:  # biases here would repeat that of the key, or cancel in the softmax
            self.query = nn.Linear(hidden, width, bias=False)
            self.score = nn.Linear(width, 1, bias=False)

    def forward(self, hidden: Tensor, grid: Grid, sentinel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, H) hidden, perhaps (N, F) sentinel → (N, F) context, (N, Q) weights.

        The weights sum to one; with a sentinel, to what it left of that. The K rows of one image share its grid by
        broadcasting, so that beams cost no copies of it.
        """
        images, positions, _ = grid.keys.shape
        width = self.width
        query = (self.query(hidden) if self.additive else hidden).view(images, -1, width)  # (B, K, A)
        if self.additive:
            scores = self._compare(query.unsqueeze(2), grid.keys.unsqueeze(1))  # (B, K, Q)
        else:
            scores = query @ grid.keys.transpose(1, 2)
        if sentinel is not None:
            own = self.sentinel_key(sentinel).view(images, -1, width)
            score = self._compare(query, own) if self.additive else (query * own).sum(dim=-1)
            scores = torch.cat((scores, score.unsqueeze(-1)), dim=-1)  # (B, K, Q + 1)
        weights = scores.float().softmax(dim=-1)
        on_grid = weights if sentinel is None else weights[..., :positions]
        context = (on_grid.to(grid.values.dtype) @ grid.values).flatten(0, 1)  # (N, F)
        if sentinel is not None:
            context = context + weights[..., positions:].flatten(0, 1).to(context.dtype) * sentinel
        return context, on_grid.flatten(0, 1)

    def _compare(self, query: Tensor, key: Tensor) -> Tensor:
        scores: Tensor = self.score(torch.tanh(key + query)).squeeze(-1)
        return scores


class CaptionModel(nn.Module):
    """Encoder, reader, attention and decoder. Everything recurrent happens in :meth:`advance`.

    Args:
        config: the architecture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = GridEncoder(config.encoder, config.grid_node)
        values, embedding, hidden = config.value_size, config.embedding_size, config.hidden_size
        said = config.output_size or embedding
        attends, before = config.attention != "none", config.attend == "before"
        self.fed = said if config.input_feeding else 0
        # A decoder that looks before its cells are run, or is fed what came of it, cannot run them ahead; the sentinel
        # reads memory cells that torch's whole sequences do not hand out.
        self.sequential = attends and (before or config.input_feeding or config.sentinel)
        self.reader = make_reader(config)
        self.embedding = nn.Embedding(config.vocabulary_size, embedding)
        self.seen = nn.Linear(values, embedding, bias=False) if config.image_input != "start" else None
        memories = 2 if config.cell == "lstm" else 1
        start = nn.Linear(values, memories * config.layers * hidden)
        self.initial = start if config.image_input != "steps" else None
        first = embedding + (values if attends and before else self.fed)
        widths = [first] + [hidden] * (config.layers - 1)
        if attends:
            self.attention = Attention(
                config.attention, values, hidden, config.attention_size, sentinel=config.sentinel
            )
        self.gate = nn.Linear(hidden, values) if config.gated_context else None
        self.cells = nn.ModuleList(CELLS[config.cell](width, hidden) for width in widths)
        self.sentinel_gate = nn.Linear(first + hidden, hidden) if config.sentinel else None
        self.output_hidden = nn.Linear(hidden, said)
        if attends:
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
        return Grid(values, self.attention.key(values) if self.config.attention != "none" else values[..., :0])

    def start(self, grid: Grid) -> State:
        """The state of B rows before the first token: of the grid's mean (Xu et al. 2015, section 3.1.2), or zeros."""
        images, layers, hidden = grid.values.shape[0], self.config.layers, self.config.hidden_size
        if self.initial is not None:
            memories = torch.tanh(self.initial(grid.values.mean(dim=1))).float().view(images, -1, layers, hidden)
        else:
            memories = grid.values.new_zeros(images, 2 if self.config.cell == "lstm" else 1, layers, hidden).float()
        cell = memories[:, 1] if memories.shape[1] == 2 else memories[:, 0, :0]
        return State(memories[:, 0], cell, memories.new_zeros(images, self.fed))

    def step(self, tokens: Tensor, state: State, grid: Grid) -> tuple[Tensor, State, Tensor]:
        """Read one token, predict the next.

        Args:
            tokens: (N,) the previous token of each row.
            state: the rows' state.
            grid: the grid of B images, N a multiple of B; rows of one image stand together.

        Returns:
            (N, V) logits of the next token, the next state, (N, P) attention weights. The weights sum to one, or with a
            sentinel to what it left of that; without attention they are even.
        """
        said, state, weights = self.advance(self.embed(tokens.unsqueeze(1), grid).squeeze(1), state, grid)
        return self.output(self.dropout(said)), state, self.spread(weights)

    def forward(self, grid: Grid, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: (N, T) tokens, from bos on → (N, T, V) logits, (N, T, P) attention weights.

        The loop over :meth:`step`, with everything that does not wait for the step before done for all steps at once.
        """
        rows, steps = tokens.shape
        state = expand(self.start(grid), rows // len(grid.values))
        embedded = self.embed(tokens, grid)  # (N, T, E)
        if self.sequential:
            each = []
            for one in embedded.unbind(dim=1):
                said, state, weights = self.advance(one, state, grid)
                each.append((said, weights))
            said, weights = (torch.stack(parts, dim=1) for parts in zip(*each, strict=True))
        else:
            hidden = self.run(embedded, state)
            said, weights = (part.view(rows, steps, -1) for part in self.look(hidden.flatten(0, 1), grid))
        return self.output(self.dropout(said)), self.spread(weights)

    def embed(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(N, T) tokens → (N, T, E), with the image vector added where each step is to see it."""
        embedded: Tensor = self.embedding(tokens)
        if self.seen is not None:
            seen = self.seen(grid.values.mean(dim=1))  # (B, E)
            images, width = seen.shape
            together = embedded.view(images, -1, tokens.shape[1], width) + seen.view(images, 1, 1, width)
            embedded = together.flatten(0, 1)
        read: Tensor = self.dropout(embedded)
        return read

    def advance(self, embedded: Tensor, state: State, grid: Grid) -> tuple[Tensor, State, Tensor]:
        """One step between embedding and output layer: (N, E) → (N, S), the next state, (N, Q) weights."""
        if self.config.attention != "none" and self.config.attend == "before":
            context, weights = self.attend(state.hidden[:, -1], grid)
            state = self.recur(torch.cat((embedded, context), dim=-1), state)
            return self.output_hidden(state.hidden[:, -1]) + self.output_context(context), state, weights
        inputs = torch.cat((embedded, state.said), dim=-1)
        after = self.recur(inputs, state)
        sentinel = None
        if self.sentinel_gate is not None:
            gate = torch.sigmoid(self.sentinel_gate(torch.cat((inputs, state.hidden[:, -1]), dim=-1)))
            sentinel = gate * torch.tanh(after.cell[:, -1])
        said, weights = self.look(after.hidden[:, -1], grid, sentinel)
        return said, after._replace(said=said[:, : self.fed]), weights

    def look(self, hidden: Tensor, grid: Grid, sentinel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, H) hidden → (N, S) what the output layer reads, (N, Q) weights: Luong et al. (2015), equation 5."""
        if self.config.attention == "none":
            positions = grid.values.shape[1]
            even = hidden.new_zeros(hidden.shape[0], positions).softmax(dim=-1)
            return self.output_hidden(hidden), even
        context, weights = self.attend(hidden, grid, sentinel)
        return torch.tanh(self.output_hidden(hidden) + self.output_context(context)), weights

    def attend(self, hidden: Tensor, grid: Grid, sentinel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(N, H) hidden → (N, F) context, gated where the architecture says so, and (N, Q) weights."""
        context, weights = self.attention(hidden, grid, sentinel)
        if self.gate is not None:
            context = context * torch.sigmoid(self.gate(hidden))
        return context, weights

    def recur(self, inputs: Tensor, state: State) -> State:
        """One step of all layers: (N, first layer's width) → the next hidden states and memory cells."""
        hidden, memories = [], []
        for layer, cell in enumerate(self.cells):
            if layer > 0:
                inputs = self.dropout(inputs)
            if self.config.cell == "lstm":
                inputs, memory = cell(inputs, (state.hidden[:, layer], state.cell[:, layer]))
                memories.append(memory)
            else:
                inputs = cell(inputs, state.hidden[:, layer])
            hidden.append(inputs)
        memory = torch.stack(memories, dim=1) if memories else state.cell
        return State(torch.stack(hidden, dim=1), memory, state.said)

    def run(self, inputs: Tensor, state: State) -> Tensor:
        """All steps of all layers by torch's whole sequences: (N, T, first layer's width) → (N, T, H) of the last."""
        runs: dict[str, Callable[..., tuple[Tensor, ...]]]
        runs = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}
        for layer, cell in enumerate(self.cells):
            if layer > 0:
                inputs = self.dropout(inputs)
            hidden = state.hidden[:, layer].unsqueeze(0)
            start = (hidden, state.cell[:, layer].unsqueeze(0)) if self.config.cell == "lstm" else hidden
            weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
            inputs = runs[self.config.cell](inputs, start, weights, True, 1, 0.0, self.training, False, True)[0]
        return inputs

    def spread(self, weights: Tensor) -> Tensor:
        """(…, Q) weights → (…, P): that of positions which the reader made one is shared out evenly among them.

        How much each of them gave, a pyramid does not tell.
        """
        pooled = READERS[self.config.reader]
        return (weights / pooled).unsqueeze(-1).expand(*weights.shape, pooled).flatten(-2) if pooled > 1 else weights


def make_reader(config: ModelConfig) -> nn.Module:
    """The reader of an architecture."""
    features, values, dropout = config.grid_features, config.value_size, config.dropout
    if config.reader == "none":
        return PointReader(features, values, dropout)
    return RecurrentReader(features, values, dropout, layers={"bilstm": 1, "pyramid": 3}[config.reader])


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
