"""Lesson 2: hooks, and Grad-CAM made of them; the data are the digits of the demo as 32x32 photos in three channels."""

import matplotlib
import numpy as np
import pytest

import onnxgrad as torch
import onnxgrad.nn.functional as F
from onnxgrad import nn, optim
from onnxgrad.tools.demo.digits import load_digits
from onnxgrad.utils.data import DataLoader, TensorDataset

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def photos(count, part=0):
    digits = load_digits()[part]
    kept = digits.labels < 4
    images = np.kron(digits.images[kept][:count], np.ones((1, 3, 4, 4), np.float32))
    return TensorDataset(torch.tensor(images * 2 - 1), torch.tensor(digits.labels[kept][:count]))


class SimpleCNN(nn.Module):
    def __init__(self, num_classes=4):
        super(SimpleCNN, self).__init__()  # noqa: UP008 - as the lesson writes it
        self.conv1 = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(16 * 8 * 8, 32)
        self.fc2 = nn.Linear(32, num_classes)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(x.size(0), -1)
        x = self.dropout(F.relu(self.fc1(x)))
        return self.fc2(x)


class GradCAM:
    def __init__(self, model, target_layer):
        self.model = model
        self.target_layer = target_layer
        self.gradients = None
        self.activations = None
        self.handles = [
            target_layer.register_forward_hook(self.save_activation),
            target_layer.register_full_backward_hook(self.save_gradient),
        ]

    def save_activation(self, module, input, output):
        self.activations = output.detach()

    def save_gradient(self, module, grad_input, grad_output):
        self.gradients = grad_output[0].detach()

    def __call__(self, input_tensor, target_class=None):
        output = self.model(input_tensor)
        if target_class is None:
            target_class = output.argmax(dim=1).item()
        self.model.zero_grad()
        one_hot = torch.zeros_like(output)
        one_hot[0][target_class] = 1
        output.backward(gradient=one_hot, retain_graph=True)

        weights = torch.mean(self.gradients, dim=(2, 3), keepdim=True)
        cam = torch.sum(weights * self.activations, dim=1, keepdim=True)
        cam = F.relu(cam)
        cam = F.interpolate(cam, size=input_tensor.shape[2:], mode="bilinear", align_corners=False)
        cam = cam - cam.min()
        cam = cam / (cam.max() + 1e-8)
        return cam.squeeze().cpu().numpy(), target_class

    def remove_hooks(self):
        for handle in self.handles:
            handle.remove()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainloader = DataLoader(photos(256), batch_size=32, shuffle=True)
    model = SimpleCNN().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.003)
    for _epoch in range(3):
        running_loss = 0.0
        for inputs, labels in trainloader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return model.eval()


def test_the_training_loop_learns(trained):
    correct = total = 0
    with torch.no_grad():
        for images, labels in DataLoader(photos(100, 1), batch_size=50):
            _, predicted = torch.max(trained(images).data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    assert total == 100 and correct / total > 0.9


def test_grad_cam_and_its_figure(trained, tmp_path):
    image = photos(8, 1)[3][0].unsqueeze(0)
    cam_of = GradCAM(trained, trained.conv2)
    heatmap, predicted = cam_of(image)
    assert heatmap.shape == (32, 32) and heatmap.min() == 0 and 0.99 < heatmap.max() <= 1 and 0 <= predicted < 4
    cam_of.remove_hooks()
    for module in trained.modules():
        assert not module._forward_hooks and not module._backward_hooks

    img = image.squeeze().permute(1, 2, 0).numpy() / 2 + 0.5
    fig, axes = plt.subplots(1, 3, figsize=(12, 4))
    axes[0].imshow(img)
    axes[0].set_title("Original Image")
    axes[1].imshow(heatmap, cmap="jet")
    axes[1].set_title("Grad-CAM Heatmap")
    axes[2].imshow(img)
    axes[2].imshow(heatmap, cmap="jet", alpha=0.5)
    axes[2].set_title("Overlay")
    for ax in axes:
        ax.axis("off")
    plt.tight_layout()
    plt.savefig(tmp_path / "grad_cam.png")
    plt.close(fig)
    assert (tmp_path / "grad_cam.png").stat().st_size > 5000


@pytest.mark.oracle
def test_the_heatmap_is_pytorchs(trained):
    theirs = pytest.importorskip("torch")
    image = photos(8, 1)[3][0].unsqueeze(0)
    ours, predicted = GradCAM(trained, trained.conv2)(image, 2)
    w = {k: theirs.tensor(v.numpy()) for k, v in trained.state_dict().items()}
    f = theirs.nn.functional
    x = theirs.tensor(image.numpy())
    x = f.batch_norm(
        f.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1), w["bn1.running_mean"], w["bn1.running_var"],
        w["bn1.weight"], w["bn1.bias"],
    )  # fmt: skip
    a = f.conv2d(f.max_pool2d(f.relu(x), 2), w["conv2.weight"], w["conv2.bias"], padding=1).requires_grad_()
    h = f.relu(f.linear(f.max_pool2d(f.relu(a), 2).flatten(1), w["fc1.weight"], w["fc1.bias"]))
    (g,) = theirs.autograd.grad(f.linear(h, w["fc2.weight"], w["fc2.bias"])[0, 2], a)
    cam = f.relu((g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True))
    cam = f.interpolate(cam, size=(32, 32), mode="bilinear", align_corners=False)
    cam = cam - cam.min()
    np.testing.assert_allclose(ours, (cam / (cam.max() + 1e-8)).squeeze().detach().numpy(), atol=1e-4)
    assert predicted == 2


def test_feature_maps_by_hooks(trained, tmp_path):
    feature_maps = {}

    def keep(name):
        def hook(module, input, output):
            feature_maps[name] = output.detach()

        return hook

    handles = [m.register_forward_hook(keep(n)) for n, m in trained.named_modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        trained(photos(1, 1)[0][0].unsqueeze(0))
    for handle in handles:
        handle.remove()
    assert {k: tuple(v.shape) for k, v in feature_maps.items()} == {"conv1": (1, 8, 32, 32), "conv2": (1, 16, 16, 16)}
    fig, axes = plt.subplots(2, 4, figsize=(8, 4))
    for i, ax in enumerate(axes.flat):
        ax.imshow(feature_maps["conv1"][0, i], cmap="viridis")
        ax.axis("off")
    plt.savefig(tmp_path / "maps.png")
    plt.close(fig)


def test_hooks_look_change_and_go():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    seen = []

    def look(module, inputs, output):
        seen.append((type(module).__name__, tuple(inputs[0].shape), tuple(output.shape)))

    def halve(module, inputs, output):
        return output * 0.5

    def shift(module, inputs):
        return (inputs[0] + 1,)

    x = torch.ones(1, 4)
    plain = model(x)
    with model[0].register_forward_hook(look), model.register_forward_hook(halve):
        np.testing.assert_allclose(model(x).tolist(), (plain * 0.5).tolist(), rtol=1e-6)
    with model.register_forward_pre_hook(shift):
        moved = model(x)
    np.testing.assert_allclose(moved.tolist(), model(x + 1).tolist(), rtol=1e-6)
    assert seen == [("Linear", (1, 4), (1, 3))] and model(x).tolist() == plain.tolist()


def test_gradients_are_clipped_and_masked_by_hooks():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    model.weight.register_hook(lambda grad: torch.clamp(grad, -0.1, 0.1))
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    model.weight.register_hook(lambda grad: grad * mask)
    (model(torch.tensor([[10.0, 10.0, 0.05]])) * 3).sum().backward()
    assert np.allclose(model.weight.grad.tolist(), [[0.1, 0.0, 0.1]])


def test_a_backward_hook_replaces_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    x = torch.ones(1, 2, requires_grad=True)
    model(x).backward()
    plain = x.grad.clone()
    x.grad = None
    with model[1].register_full_backward_hook(lambda m, grad_in, grad_out: (grad_in[0] * 2,)):
        model(x).backward()
    np.testing.assert_allclose(x.grad.tolist(), (plain * 2).tolist(), rtol=1e-6)
