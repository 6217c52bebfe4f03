"""ViT-B/16, BERT-base and GPT-2, without dropout; attention is written out, as exported files have it.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2020); Devlin et al., "BERT: Pre-training of Deep
Bidirectional Transformers for Language Understanding" (2018); Radford et al., "Language Models are Unsupervised
Multitask Learners" (2019).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WIDTH, HEADS, DEPTH = 768, 12, 12


class Attention(nn.Module):
    """Self-attention of several heads; one projection for query, key and value, or three."""

    def __init__(self, *, joint: bool) -> None:
        super().__init__()
        sizes = {"qkv": 3 * WIDTH} if joint else dict.fromkeys(("query", "key", "value"), WIDTH)
        self.projections = nn.ModuleDict({n: nn.Linear(WIDTH, size) for n, size in sizes.items()})
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: Tensor | None = None) -> Tensor:
        """Shapes: (N, L, WIDTH), added (N, 1, 1, L), kept (1, 1, L, L) -> (N, L, WIDTH)."""
        parts = [p(x) for p in self.projections.values()]
        if len(parts) == 1:
            parts = list(parts[0].split(WIDTH, -1))
        q, k, v = (t.view(t.shape[0], t.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2) for t in parts)
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        if causal is not None:
            scores = torch.where(causal, scores, torch.finfo(torch.float32).min)
        if mask is not None:
            scores = scores + mask
        y = (scores.softmax(-1) @ v).transpose(1, 2)
        y = y.reshape(y.shape[0], y.shape[1], WIDTH)
        out: Tensor = self.out(y)
        return out


class Layer(nn.Module):
    """Attention and a perceptron; normalised before each, or after each as in BERT."""

    def __init__(self, *, joint: bool, before: bool, eps: float, activation: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.norm1 = nn.LayerNorm(WIDTH, eps=eps)
        self.attention = Attention(joint=joint)
        self.norm2 = nn.LayerNorm(WIDTH, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), activation, nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: Tensor | None = None) -> Tensor:
        """Shapes: (N, L, WIDTH) -> the same."""
        if self.before:
            x = x + self.attention(self.norm1(x), mask, causal)
            y: Tensor = x + self.mlp(self.norm2(x))
            return y
        x = self.norm1(x + self.attention(x, mask, causal))
        y = self.norm2(x + self.mlp(x))
        return y


class TanhGELU(nn.Module):
    """GELU in the approximation of GPT-2, written out."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: any -> the same."""
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class ViT(nn.Module):
    """A transformer over the patches of an image."""

    def __init__(self, side: int = 224, patch: int = 16, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, WIDTH) * 0.02)
        self.layers = nn.ModuleList(
            Layer(joint=True, before=True, eps=1e-6, activation=nn.GELU()) for _ in range(DEPTH)
        )
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (N, 3, side, side) -> (N, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


class BERT(nn.Module):
    """A bidirectional transformer over words, and a pooled first token."""

    def __init__(self, words: int = 30522, positions: int = 512) -> None:
        super().__init__()
        self.word = nn.Embedding(words, WIDTH)
        self.position = nn.Embedding(positions, WIDTH)
        self.kind = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(
            Layer(joint=False, before=False, eps=1e-12, activation=nn.GELU()) for _ in range(DEPTH)
        )
        self.pooler = nn.Linear(WIDTH, WIDTH)
        small_weights(self)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: (N, L) three times -> (N, L, WIDTH), (N, WIDTH)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.word(input_ids) + self.kind(token_type_ids) + self.position(positions))
        mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


class GPT2(nn.Module):
    """A causal transformer over words, whose answer shares the words' embedding."""

    causal: Tensor

    def __init__(self, words: int = 50257, positions: int = 1024) -> None:
        super().__init__()
        self.word = nn.Embedding(words, WIDTH)
        self.position = nn.Embedding(positions, WIDTH)
        self.layers = nn.ModuleList(
            Layer(joint=True, before=True, eps=1e-5, activation=TanhGELU()) for _ in range(DEPTH)
        )
        self.norm = nn.LayerNorm(WIDTH)
        keep = torch.ones(positions, positions, dtype=torch.bool).tril()
        self.register_buffer("causal", keep[None, None], persistent=False)
        small_weights(self)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Shapes: (N, L) -> (N, L, words)."""
        length = input_ids.shape[1]
        x = self.word(input_ids) + self.position(torch.arange(length, device=input_ids.device))
        for layer in self.layers:
            x = layer(x, causal=self.causal[:, :, :length, :length])
        return nn.functional.linear(self.norm(x), self.word.weight)


def small_weights(model: nn.Module) -> None:
    """Draw the weights as BERT and GPT-2 do."""
    for m in model.modules():
        if isinstance(m, nn.Linear | nn.Embedding):
            nn.init.normal_(m.weight, std=0.02)
        if isinstance(m, nn.Linear):
            nn.init.zeros_(m.bias)


def vit_b16() -> nn.Module:
    """Return ViT-B/16 for images of 224."""
    return ViT()


def bert_base() -> nn.Module:
    """Return BERT-base with its pooler."""
    return BERT()


def gpt2() -> nn.Module:
    """Return GPT-2 of 124 million parameters."""
    return GPT2()
