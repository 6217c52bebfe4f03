"""Networks to draw, and what holds of every drawing."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn

SVG = "{http://www.w3.org/2000/svg}"
VGG = (4, 0, 8, 0, 16, 16, 0, 32, 32, 0, 32, 32, 0)


class VGG11(nn.Module):
    """Eight convolutions and three linear layers."""

    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for w in VGG:
            layers += [nn.Conv2d(width, w, 3, padding=1), nn.ReLU()] if w else [nn.MaxPool2d(2)]
            width = w or width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Residual(nn.Module):
    """Two blocks with a way round each."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(4)])

    def forward(self, x):
        x = F.relu(self.stem(x))
        blocks = list(self.blocks)
        for a, b in zip(blocks[::2], blocks[1::2], strict=True):
            x = F.relu(b(F.relu(a(x))) + x)
        return x.mean((2, 3))


def worked_example():
    og.manual_seed(0)
    x = og.ones(2, 2, requires_grad=True)
    w1, w2, w3 = (og.tensor(v, requires_grad=True) for v in (2.0, 3.0, 4.0))
    l1 = x * w1
    l2, l3 = l1 + w2, l1 * w3
    return (l2 * l3).mean(), {"input": x, "w1": w1, "w2": w2, "w3": w3}


def functions_of(*outputs):
    """Every function below some Tensors, once."""
    found, stack = {}, [t.grad_fn for t in outputs]
    while stack:
        node = stack.pop()
        if node is not None and id(node) not in found:
            found[id(node)] = node
            stack += [n for n, _ in node.next_functions]
    return list(found.values())


def texts(drawing):
    return [[line.text for s in b.sections for line in s.lines] for b in drawing.picture.boxes]


def overlaps(layout):
    """Pairs of boxes that lie on each other."""
    boxes = sorted(layout.boxes, key=lambda p: p.y)
    return [
        (a.box.key, b.box.key)
        for i, a in enumerate(boxes)
        for b in itertools.takewhile(lambda b, a=a: b.y < a.bottom, boxes[i + 1 :])
        if a.x < b.right and b.x < a.right
    ]


def along(curve, count=12):
    """Points on a curve."""
    start = curve.start
    for a, b, end in curve.pieces:
        for k in range(count):
            t = k / count
            yield tuple(
                (1 - t) ** 3 * start[i] + 3 * (1 - t) ** 2 * t * a[i] + 3 * (1 - t) * t * t * b[i] + t**3 * end[i]
                for i in (0, 1)
            )
        start = end


def through_boxes(layout):
    """Edges that pass a box that is not their own."""
    corners = np.array([(p.x, p.right, p.y, p.bottom) for p in layout.boxes]) + np.array((0.5, -0.5, 0.5, -0.5))
    found = []
    for c in layout.curves:
        x, y = np.array(list(along(c))).T[..., None]
        left, right, top, bottom = corners.T
        for k in np.flatnonzero(((x > left) & (x < right) & (y > top) & (y < bottom)).any(0)):
            if layout.boxes[k].box.key not in (c.edge.source, c.edge.target):
                found.append((c.edge.source, c.edge.target, layout.boxes[k].box.key))
    return found


def check_layout(drawing):
    layout = drawing.layout
    assert [p.box.key for p in layout.boxes] == [b.key for b in drawing.picture.boxes]
    assert overlaps(layout) == []
    assert through_boxes(layout) == []
    placed = {p.box.key: p for p in layout.boxes}
    for c in layout.curves:
        target = placed[c.edge.target]
        assert target.x < c.end[0] < target.right and abs(c.end[1] - target.y) < 1e-6
    for x, y in (p for c in layout.curves for p in c.points()):
        assert -1e-6 <= x <= layout.width + 1e-6 and -1e-6 <= y <= layout.height + 1e-6
    assert all(
        p.x >= -1e-6 and p.right <= layout.width + 1e-6 and p.bottom <= layout.height + 1e-6 for p in layout.boxes
    )


def check_svg(drawing):
    root = ET.fromstring(drawing.svg())
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("node ")]
    assert [g.get("id") for g in groups] == [b.key for b in drawing.picture.boxes]
    edges = [(g.get("data-from"), g.get("data-to")) for g in root.iter(f"{SVG}g") if g.get("class") == "edge"]
    assert edges == [(e.source, e.target) for e in drawing.picture.edges]
    width, height = float(root.get("width")), float(root.get("height"))
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert width > drawing.layout.width and height > drawing.layout.height
    for group, box in zip(groups, drawing.picture.boxes, strict=True):
        assert [t.text for t in group.iter(f"{SVG}text")] == [line.shown for s in box.sections for line in s.lines]
